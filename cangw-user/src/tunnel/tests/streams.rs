//! TCP.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use super::{LONG, Lab, PeerState, frame, free_port, wait};

#[test]
fn a_stream_is_dialed_again_and_nothing_old_is_sent() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let port = server.local_addr().expect("an address").port();
    let lab = Lab::start(&format!(
        "connect = \"tcp://127.0.0.1:{port}\"\nmax_age = \"300ms\""
    ));
    let accept = || {
        let (stream, _) = server.accept().expect("a connection");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        let mut greeting = [0; 12];
        (&stream).read_exact(&mut greeting).expect("a greeting");
        assert_eq!(&greeting, b"CANNELLONIv1");
        (&stream).write_all(&greeting).expect("it is read");
        stream
    };
    let next = |mut stream: &TcpStream| {
        let mut bytes = [0; 6];
        stream.read_exact(&mut bytes).expect("a frame");
        bytes
    };
    let stream = accept();
    lab.until(0, "connected", |peer| peer.state == PeerState::Connected);
    lab.wires.send(0, &frame(0x123, &[1]));
    assert_eq!(next(&stream), [0, 0, 1, 0x23, 1, 1]);
    (&stream)
        .write_all(&[0, 0, 3, 0x21, 2, 8])
        .expect("it is read");
    (&stream).write_all(&[9]).expect("it is read");
    assert_eq!(lab.wires.receive(0), frame(0x321, &[8, 9]));
    // Nobody is there for a while.
    drop(stream);
    drop(server);
    lab.until(0, "stale", |peer| {
        peer.state == PeerState::Stale && peer.error.is_some()
    });
    for n in 0..50 {
        lab.wires.send(0, &frame(0x200, &[n]));
    }
    lab.until(0, "too old", |peer| peer.counters.too_old == 50);
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a socket");
    let (stream, _) = server.accept().expect("it comes again");
    let mut greeting = [0; 12];
    (&stream).read_exact(&mut greeting).expect("a greeting");
    (&stream).write_all(&greeting).expect("it is read");
    lab.until(0, "connected", |peer| peer.state == PeerState::Connected);
    lab.wires.send(0, &frame(0x124, &[2]));
    assert_eq!(next(&stream), [0, 0, 1, 0x24, 1, 2]);
    lab.until(0, "two frames", |peer| peer.counters.sent == 2);
}

#[test]
fn streams_of_clients_come_and_go() {
    let port = free_port();
    let lab = Lab::start(&format!(
        "listen = \"tcp://127.0.0.1:{port}\"\nclients = [\"127.0.0.1\"]\nmax_clients = 2"
    ));
    let connect = || {
        let stream = wait("it listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        stream
    };
    let greet = |mut stream: &TcpStream| {
        let mut greeting = [0; 12];
        stream.read_exact(&mut greeting).expect("a greeting");
        stream.write_all(&greeting).expect("it is read");
    };
    let streams = [connect(), connect()];
    for (number, mut stream) in (0..).zip(&streams) {
        greet(stream);
        stream
            .write_all(&[0, 0, 0, number as u8, 1, 7])
            .expect("it is read");
        assert_eq!(lab.wires.receive(number), frame(number, &[7]));
        lab.wires.send(number, &frame(0x7FF, &[]));
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).expect("a frame");
        assert_eq!(bytes, [0, 0, 7, 0xFF, 0]);
    }
    // A third one is turned away; when the first ends, its place is free.
    let mut bytes = Vec::new();
    assert_eq!(connect().read_to_end(&mut bytes).unwrap_or(0), 0);
    let [first, _second] = streams;
    drop(first);
    lab.until(0, "stale", |peer| peer.state == PeerState::Stale);
    let third = connect();
    greet(&third);
    (&third).write_all(&[0, 0, 0, 9, 0]).expect("it is read");
    lab.until(0, "a frame", |peer| {
        peer.counters.received == 2 && peer.counters.malformed == 0
    });
    // What is no frame ends the connection.
    (&third).write_all(&[0, 0, 0, 9, 60]).expect("it is read");
    lab.until(0, "malformed", |peer| {
        peer.counters.malformed == 1 && peer.state == PeerState::Stale
    });
    // One that says something else gets no port.
    let fourth = connect();
    (&fourth)
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("it is read");
    lab.until(0, "an error", |peer| {
        peer.error
            .as_ref()
            .is_some_and(|e| e.contains("CANNELLONIv1"))
    });
}

#[test]
fn a_stream_carries_what_a_stream_carries() {
    // Both ends are ours.
    let port = free_port();
    let server = Lab::start(&format!(
        "listen = \"tcp://127.0.0.1:{port}\"\nclients = [\"127.0.0.1\"]"
    ));
    let client = Lab::start(&format!("connect = \"tcp://127.0.0.1:{port}\""));
    client.until(0, "connected", |peer| peer.state == PeerState::Connected);
    for n in 0..5000u32 {
        client.wires.send(0, &frame(n % 0x800, &n.to_be_bytes()));
        assert_eq!(server.wires.receive(0), frame(n % 0x800, &n.to_be_bytes()));
    }
    server.wires.send(0, &frame(5, &[]));
    assert_eq!(client.wires.receive(0), frame(5, &[]));
    client.until(0, "all sent", |peer| peer.counters.sent == 5000);
    server.until(0, "all received", |peer| peer.counters.received == 5000);
}
