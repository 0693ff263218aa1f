//! Messages and signals by the names of a DBC file.

use cangw::dbc::Signal;
use cangw_tests::frame::Frame;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::recording;
use cangw_tests::tool::Cangw;

const LINKS: [Link; 2] = [Link::Vxcan("x0"), Link::Vxcan("x1")];
const MESSAGE: &str = "ENGINE_DATA";
const SIGNAL: &str = "ENGINE_RPM";
const VALUE: f64 = 4321.0;

/// A file of the test, in a folder that the guest forgets.
struct File(std::path::PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cangw-test-{}.dbc", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_signal_is_written_by_its_name() {
    let mut lab = Lab::new("signals", &LINKS);
    let (text, dbc) = recording::dbc();
    let file = File::new(&text);
    let path = file.0.display();
    let message = dbc.message(MESSAGE).expect("the message");
    for rule in [
        format!("rule add -s x0 -d x1 --dbc {path} --set {MESSAGE}.{SIGNAL}={VALUE}"),
        "rule add -s x0 -d x1 --id 000-7FF --priority 1".to_owned(),
        "rule add -s x0 --drop --id 7FF --priority -1".to_owned(),
    ] {
        Cangw::Ours.must(&lab.namespace, &rule);
    }
    let frames = recording::frames();
    frames.iter().for_each(|frame| lab.post("x0p", frame));
    let arrived = lab.take_on("x1p");
    let mut arrived = arrived.iter();
    let mut next = || arrived.next().expect("one more frame");
    let mut rewritten = 0;
    for frame in &frames {
        assert_eq!(next(), frame, "the copy of the rule of higher priority");
        if frame.id() != message.can_id {
            continue;
        }
        rewritten += 1;
        let copy = next();
        assert_eq!(copy.data().len(), frame.data().len());
        for signal in &message.signals {
            let value = |frame: &Frame| signal.decode(frame.data());
            let expected = if signal.name == SIGNAL {
                Some(VALUE)
            } else {
                value(frame)
            };
            assert_eq!(value(copy), expected, "{}", signal.name);
        }
        // Bits that no signal has are what they were.
        let named = |i: usize| {
            message
                .signals
                .iter()
                .fold(0, |mask, signal: &Signal| mask | signal.mask()[i])
        };
        for (i, (old, new)) in frame.data().iter().zip(copy.data()).enumerate() {
            assert_eq!((old ^ new) & !named(i), 0, "byte {i}");
        }
    }
    assert_eq!(arrived.next(), None);
    assert!(rewritten > 20, "{rewritten}");
}

#[test]
fn a_checksum_is_right_after_a_signal_was_written() {
    let mut lab = Lab::new("signal-sum", &LINKS);
    let file = File::new(&recording::dbc().0);
    Cangw::Ours.must(
        &lab.namespace,
        &format!(
            "rule add -s x0 -d x1 --dbc {} --set {MESSAGE}.{SIGNAL}=0 -x 0:5:6:5A",
            file.0.display()
        ),
    );
    // Only the frames of the message are taken.
    lab.send("x0p", &Frame::classic(0x7F1, &[0; 8]));
    let message = recording::dbc()
        .1
        .message(MESSAGE)
        .expect("the message")
        .can_id;
    lab.send("x0p", &Frame::classic(message, &[1, 2, 3, 4, 5, 6, 7]));
    let arrived = lab.take_on("x1p");
    let data = [1, 2, 0, 0, 5, 6];
    let sum = data.iter().fold(0x5A, |sum, byte| sum ^ byte);
    assert_eq!(arrived, [Frame::classic(message, &[1, 2, 0, 0, 5, 6, sum])]);
}

#[test]
fn names_that_are_not_there_are_refused_with_similar_ones() {
    let lab = Lab::new("signal-names", &LINKS);
    let file = File::new(&recording::dbc().0);
    let path = file.0.display();
    for (options, reason) in [
        (format!("--dbc {path} --message ENGINE_DAT"), MESSAGE),
        (format!("--dbc {path} --set {MESSAGE}.RPM=0"), "RPM"),
        (
            format!("--dbc {path} --set {MESSAGE}.{SIGNAL}=65536"),
            "65535",
        ),
        (
            format!("--dbc {path} --set {MESSAGE}.{SIGNAL}=1 --id 001"),
            "one message",
        ),
        (
            format!("--dbc {path} --set {MESSAGE}.{SIGNAL}=1 -m AND:D:0.0.0000000000000000"),
            "AND",
        ),
        ("--dbc /nowhere.dbc --message A".to_owned(), "/nowhere.dbc"),
        ("--message A".to_owned(), "--dbc"),
    ] {
        let answer = Cangw::Ours.run(&lab.namespace, &format!("rule add -s x0 -d x1 {options}"));
        assert_ne!(answer.code, 0, "{options}");
        assert!(answer.stderr.contains(reason), "{options}: {answer:?}");
    }
    assert_eq!(Cangw::Ours.list(&lab.namespace), []);
    let rule = format!("rule add -s x0 -d x1 --dbc {path} --message {MESSAGE}");
    Cangw::Ours.must(&lab.namespace, &rule);
    // The file is not needed any more.
    let id = recording::dbc()
        .1
        .message(MESSAGE)
        .expect("it is there")
        .can_id;
    let listed = &Cangw::Ours.list(&lab.namespace)[0].rule;
    assert_eq!(*listed, format!("-s x0 -d x1 --id {id:03X}"));
}
