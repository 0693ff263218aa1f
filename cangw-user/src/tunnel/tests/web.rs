//! WebSockets.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::{LONG, Lab, PeerState, SECOND, frame, free_port, wait};

/// A certificate for localhost with its key, and that of the authority that signed it, as files.
struct Certificates(PathBuf);

impl Certificates {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("cangw-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder can be made");
        let new_key = || KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = new_key();
        let ca = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        let own = new_key();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&own, &issuer).expect("a certificate");
        for (file, text) in [
            ("ca.pem", ca.pem()),
            ("own.pem", certificate.pem()),
            ("own.key", own.serialize_pem()),
        ] {
            fs::write(folder.join(file), text).expect("a file can be written");
        }
        Self(folder)
    }

    /// Keys of a tunnel's table.
    fn keys(&self, own: bool, ca: bool) -> String {
        let folder = self.0.display();
        let own = if own {
            format!("certificate = \"{folder}/own.pem\"\nkey = \"{folder}/own.key\"\n")
        } else {
            String::new()
        };
        let ca = if ca {
            format!("ca = \"{folder}/ca.pem\"\n")
        } else {
            String::new()
        };
        own + &ca
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Frames both ways between a server and a client.
fn frames_pass(server: &Lab, client: &Lab) {
    client.until(0, "connected", |peer| peer.state == PeerState::Connected);
    for n in 0..500 {
        client.wires.send(0, &frame(n, &[1]));
    }
    for n in 0..500 {
        assert_eq!(server.wires.receive(0), frame(n, &[1]));
    }
    server.wires.send(0, &frame(5, &[]));
    assert_eq!(client.wires.receive(0), frame(5, &[]));
    client.until(0, "all sent", |peer| {
        peer.counters.sent == 500 && peer.counters.received == 1
    });
    server.until(0, "all received", |peer| peer.counters.received == 500);
}

#[test]
fn web_sockets_carry_datagrams() {
    let port = free_port();
    let server = Lab::start(&format!(
        "listen = \"ws://127.0.0.1:{port}/can\"\nclients = [\"127.0.0.1\"]\nflush = \"1ms\"\nstale = \"600ms\"\norigins = [\"https://bench.example\"]"
    ));
    let client = Lab::start(&format!(
        "connect = \"ws://localhost:{port}/can\"\nflush = \"1ms\"\nstale = \"600ms\""
    ));
    frames_pass(&server, &client);
    // Both ask whether the other is there, and so stay.
    thread::sleep(2 * SECOND);
    assert_eq!(client.peer(0).state, PeerState::Connected);
    assert_eq!(server.peer(0).state, PeerState::Connected);
    assert_eq!(server.peer(0).counters.malformed, 0);
    // By hand, as a browser: a page that may, one that may not, and another path.
    let ask = |path: &str, origin: &str| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: cannelloni\r\nOrigin: {origin}\r\n\r\n"
        )
        .expect("it is read");
        let mut answer = [0; 1000];
        let read = stream.read(&mut answer).expect("an answer");
        (
            String::from_utf8_lossy(&answer[..read]).into_owned(),
            stream,
        )
    };
    assert!(
        ask("/can", "https://evil.example")
            .0
            .starts_with("HTTP/1.1 403 ")
    );
    assert!(
        ask("/", "https://bench.example")
            .0
            .starts_with("HTTP/1.1 404 ")
    );
    let (answer, mut browser) = ask("/can", "https://bench.example");
    assert!(
        answer.starts_with("HTTP/1.1 101 ")
            && answer
                .to_lowercase()
                .contains("sec-websocket-protocol: cannelloni"),
        "{answer}"
    );
    // A masked binary message, whose mask is 0; then one that is no datagram, and text.
    let own = wait("its place", || {
        let peers = server.running.report("").peers;
        let peer = peers
            .into_iter()
            .filter(|p| p.state == PeerState::Connected)
            .max_by_key(|p| p.number)?;
        (peer.counters.received == 0).then_some(peer.number)
    });
    for message in [
        &[0x82, 0x8B, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 1, 0x23, 1, 9][..],
        &[0x82, 0x81, 0, 0, 0, 0, 7],
        &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'],
    ] {
        browser.write_all(message).expect("it is read");
    }
    assert_eq!(server.wires.receive(own), frame(0x123, &[9]));
    server.until(own, "malformed", |peer| peer.counters.malformed == 2);
    // It does not answer when it is asked.
    server.until(own, "stale", |peer| peer.state == PeerState::Stale);
}

#[test]
fn web_sockets_over_tls_know_who_is_who() {
    let (ours, others) = (Certificates::new("ours"), Certificates::new("others"));
    let port = free_port();
    let server = Lab::start(&format!(
        "listen = \"wss://127.0.0.1:{port}\"\nclients = [\"127.0.0.1\"]\nflush = \"1ms\"\n{}",
        ours.keys(true, true)
    ));
    let client = |keys: &str| {
        Lab::start(&format!(
            "connect = \"wss://localhost:{port}\"\nflush = \"1ms\"\n{keys}"
        ))
    };
    frames_pass(&server, &client(&ours.keys(true, true)));
    let folder = others.0.display();
    // Somebody else's certificate, none, and a client that does not trust the server.
    for keys in [
        format!(
            "{}certificate = \"{folder}/own.pem\"\nkey = \"{folder}/own.key\"",
            ours.keys(false, true)
        ),
        ours.keys(false, true),
        ours.keys(true, false) + &format!("ca = \"{folder}/ca.pem\""),
    ] {
        let stranger = client(&keys);
        stranger.until(0, "refused", |peer| peer.error.is_some());
        thread::sleep(SECOND / 2);
        let peer = stranger.peer(0);
        assert!(
            peer.counters.received == 0 && peer.counters.sent == 0,
            "{peer:?}"
        );
    }
    server.until(0, "all of one client", |peer| peer.counters.received == 500);
    let wrong = Lab::start(&format!(
        "listen = \"wss://127.0.0.1:{}\"\nclients = [\"::/0\"]\ncertificate = \"{folder}/no.pem\"\nkey = \"{folder}/own.key\"",
        free_port()
    ));
    wait("an error", || {
        wrong
            .running
            .report("")
            .error
            .filter(|e| e.contains("no.pem"))
    });
}
