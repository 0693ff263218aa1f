//! What the programs log.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cangw_tests::frame::Frame;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::socket::PATIENCE;
use cangw_tests::tool::Cangw;

#[test]
fn a_forwarded_frame_is_logged() {
    let lab = Lab::new("log", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    Cangw::Ours.must(&lab.namespace, "-A -s x0 -d x1");
    let answer = Cangw::Ours.run(&lab.namespace, "log");
    assert_ne!(answer.code, 0, "the log is off: {answer:?}");
    assert!(answer.stderr.contains("settings log on"), "{answer:?}");

    Cangw::Ours.must(&lab.namespace, "settings log on");
    let mut log = Cangw::Ours
        .command(&lab.namespace)
        .arg("log")
        .stdout(Stdio::piped())
        .spawn()
        .expect("cangw runs");
    let output = log.stdout.take().expect("standard output is a pipe");
    let (lines, incoming) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    let start = Instant::now();
    let line = loop {
        // A frame before the reader is ready need not be shown.
        lab.send("x0p", &Frame::classic(0x5A5, &[]));
        if let Ok(line) = incoming.recv_timeout(Duration::from_millis(100)) {
            break Some(line);
        }
        if start.elapsed() > PATIENCE {
            break None;
        }
    };
    log.kill().expect("the reader can be ended");
    log.wait().expect("the reader ends");
    let line = line.expect("a frame is logged");
    assert!(line.contains("5a5"), "{line:?}");
    Cangw::Ours.must(&lab.namespace, "settings log off");
}
