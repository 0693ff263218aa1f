//! `cangw rule test` says what then happens.

use cangw_tests::frame::{EFF, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::tool::{Cangw, json};

const LINKS: [Link; 4] = [
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
    Link::Vxcan("x2"),
    Link::Vcan("v0"),
];

#[test]
fn what_is_said_happens() {
    let mut lab = Lab::new("verdicts", &LINKS);
    for command in [
        "interface set x0 policy deny",
        "rule add -s x0 -d x1 --id 100-1FF,18FEF100",
        "rule add -s x0 -d x2 --id 180-2FF -m XOR:ID:7.0.FF00000000000000 -x 0:1:2:00",
        &format!("rule add -s x0 -d v0 -e -M SET:L:0.0.3.{:0128} -X", 0),
        "rule add -s x0 -d x1 --id 300-3FF -m XOR:L:0.E.0000000000000000",
        "rule add -s x0 --drop --id 1C0-1DF",
        "rule add -s x0 --pass --id 400",
        "rule add -s x0 -d x1 --id 1D0 --priority 2",
    ] {
        Cangw::Ours.must(&lab.namespace, command);
    }
    let mut rng = fastrand::Rng::with_seed(11);
    let mut forwarded = 0;
    for _ in 0..60 {
        let data: Vec<u8> = (0..rng.usize(..=8)).map(|_| rng.u8(..)).collect();
        let frame = match rng.u8(..10) {
            0 => Frame::classic(EFF | 0x18FE_F100, &data),
            1 => Frame::fd(rng.u32(..0x500), 0, &data),
            2 => Frame::remote(rng.u32(..0x500), 3),
            _ => Frame::classic(rng.u32(0xF0..0x410), &data),
        };
        let said = json(
            &lab.namespace,
            &format!("rule test -s x0 --frame {frame} --json"),
        );
        lab.send("x0p", &frame);
        let seen = lab.take();
        for (target, far) in [("x1", "x1p"), ("x2", "x2p"), ("v0", "v0")] {
            let rules = said["rules"].as_array().expect("a list");
            let sent = rules
                .iter()
                .filter(|r| r["does"] == "send" && r["target"] == target);
            let expected: Vec<String> = sent
                .map(|r| r["frame"].as_str().expect("a frame").to_owned())
                .collect();
            let arrived: Vec<String> = seen
                .get(far)
                .into_iter()
                .flatten()
                .map(Frame::to_string)
                .collect();
            assert_eq!(arrived, expected, "{frame} to {target}: {said}");
            forwarded += arrived.len();
        }
        let delivered = seen.get("x0").is_some_and(|frames| !frames.is_empty());
        assert_eq!(said["delivered"], delivered, "{frame}: {said}");
    }
    assert!(forwarded > 20, "{forwarded}");
    let text = Cangw::Ours.must(&lab.namespace, "rule test -s x0 --frame 1D0#DEADBEEF");
    assert_eq!(
        text,
        "1D0#DEADBEEF on x0\n  -s x0 -d x1 --priority 2 --id 1D0\n    sends it to x1: unchanged\n  \
         -s x0 --drop --id 1C0-1DF\n    drops it; what comes later does not see it\n  \
         local sockets of x0 do not get it\n"
    );
    let bad = Cangw::Ours.run(&lab.namespace, "rule test -s x0 --frame 123#1g");
    assert_eq!(bad.code, 1);
    assert!(bad.stderr.contains("character 6"), "{bad:?}");
}
