//! CAN XL frames, which can-gw does not forward. Kernels have them from 6.1 on.

use cangw_tests::frame::{BRS, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::tool::Cangw;

const MTU: u32 = 2060;
const INTERFACES: [&str; 6] = ["x0", "x0p", "x1", "x1p", "v0", "v1"];

fn lab() -> Lab {
    Lab::new(
        "xl",
        &[
            Link::Vxcan("x0"),
            Link::Vxcan("x1"),
            Link::Vcan("v0"),
            Link::Vcan("v1"),
        ],
    )
}

fn xl(priority: u32, length: usize) -> Frame {
    let data: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
    Frame::xl(priority, 3, 0xCAFE_0000 | priority, &data)
}

#[test]
fn xl_frames_are_forwarded() {
    let mut lab = lab();
    set_mtu(&lab);
    for rule in [
        "-s x0 -d x1 --xl",
        "-s x0 -d v0 --xl -e -f 123:7FF",
        "-s v0 -d v1 --xl -e",
        "-s x0 -d x1 -f 123:7FF",
    ] {
        Cangw::Ours.must(&lab.namespace, &format!("-A {rule}"));
    }
    let frames: Vec<Frame> = [(0x123, 1), (0x124, 2048), (0x123, 64), (0, 4), (0x7FF, 60)]
        .map(|(priority, length)| xl(priority, length))
        .into();
    let classic = Frame::classic(0x123, &[1, 2, 3]);
    let fd = Frame::fd(0x123, BRS, &[9; 48]);
    for frame in frames.iter().chain([&classic, &fd]) {
        lab.send("x0p", frame);
    }
    lab.send("v0", &frames[1]);
    let seen = lab.take();
    assert_eq!(
        seen["x1p"],
        [frames.clone(), vec![classic.clone()]].concat()
    );
    assert_eq!(seen["x0"].len(), 7, "local sockets of the source");
    let echoed = [&frames[0], &frames[2], &frames[1]].map(Frame::clone);
    assert_eq!(seen["v0"], echoed);
    assert_eq!(seen["v1"], frames[1..2], "one hop is the limit");
    let counts: Vec<_> = Cangw::Ours
        .list(&lab.namespace)
        .iter()
        .map(|rule| (rule.handled, rule.deleted))
        .collect();
    assert_eq!(counts, [(1, 0), (1, 2), (2, 0), (5, 0)]);
}

fn set_mtu(lab: &Lab) {
    for name in INTERFACES {
        lab.namespace.ip(&format!(
            "link set {name} down\nlink set {name} mtu {MTU}\nlink set {name} up"
        ));
    }
}

#[test]
fn every_field_of_the_header_is_a_filter() {
    let mut lab = lab();
    set_mtu(&lab);
    for (source, far, near) in [("x0", "x1p", "x1"), ("v0", "v1", "v1")] {
        let entry = if source == "x0" { "x0p" } else { "v0" };
        for (options, takes) in [
            ("--id 100-1FF", [true, false, true, true, true]),
            ("--vcid 45", [true, true, false, true, true]),
            ("--sdt 03", [true, true, true, false, true]),
            ("--af CAFE0000:FFFF0000", [true, true, true, true, false]),
            ("--af CAFE0123", [true, true, true, true, false]),
            (
                "-f 123:7FF --vcid 45 --sdt 3 --af 3:F",
                [true, false, false, false, false],
            ),
        ] {
            let rule = format!("-s {source} -d {near} -e --xl {options}");
            Cangw::Ours.must(&lab.namespace, &format!("rule add {rule}"));
            let mut expected = Vec::new();
            for length in [1, 2, 63, 64, 65, 1000, 2048] {
                let data: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
                // Each of the others differs in one field.
                for (i, (priority, vcid, sdt, af)) in [
                    (0x123, 0x45, 3, 0xCAFE_0123),
                    (0x223, 0x45, 3, 0xCAFE_0123),
                    (0x123, 0x46, 3, 0xCAFE_0123),
                    (0x123, 0x45, 4, 0xCAFE_0123),
                    (0x123, 0x45, 3, 0xCAFF_0124),
                ]
                .into_iter()
                .enumerate()
                {
                    let frame = Frame::xl(priority, sdt, af, &data).on_vcid(vcid);
                    lab.post(entry, &frame);
                    if takes[i] {
                        expected.push(frame);
                    }
                }
            }
            assert_eq!(lab.take_on(far), expected, "{rule}");
            let rule = format!("rule delete {rule}");
            Cangw::Ours.must(&lab.namespace, &rule);
        }
    }
}

#[test]
fn xl_frames_have_limits_faults_and_watches() {
    let mut lab = lab();
    set_mtu(&lab);
    for rule in [
        "-s x0 -d x1 --xl --corrupt 100% --watch",
        "-s x0 -d v0 -e --xl --duplicate 100%",
        "-s x0 -d v1 -e --xl --rate 1/h --burst 1",
    ] {
        Cangw::Ours.must(&lab.namespace, &format!("rule add {rule}"));
    }
    let frames = [xl(0x123, 1), xl(0x123, 2048)];
    frames.iter().for_each(|frame| lab.send("x0p", frame));
    let seen = lab.take();
    for (damaged, frame) in seen["x1p"].iter().zip(&frames) {
        let bits = damaged.bytes().iter().zip(frame.bytes());
        let bits: u32 = bits.map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(bits, 1, "{damaged}");
        assert_eq!(damaged.bytes()[..12], frame.bytes()[..12]);
    }
    let [a, b] = &frames;
    assert_eq!(seen["v0"], [a, a, b, b].map(Frame::clone));
    assert_eq!(seen["v1"], std::slice::from_ref(a));
    assert_eq!(seen["x0"], frames);
    let watched = cangw_tests::tool::json(&lab.namespace, "watch x0 --json");
    assert_eq!(watched[0]["count"], 2);
    assert_eq!(watched[0]["len"], 2048);
    assert_eq!(
        watched[0]["data"],
        serde_json::json!(frames[1].bytes()[12..76])
    );
}

#[test]
fn a_target_for_shorter_frames_is_refused() {
    let lab = lab();
    let refused = Cangw::Ours.run(&lab.namespace, "-A -s x0 -d x1 --xl");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("MTU 72") && refused.stderr.contains("2060"),
        "{refused:?}"
    );
    assert_eq!(Cangw::Ours.list(&lab.namespace), []);
}
