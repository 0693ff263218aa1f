//! `--watch` and `cangw watch`.

use cangw_tests::frame::{EFF, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::tool::{Cangw, json};

const LINKS: [Link; 2] = [Link::Vxcan("x0"), Link::Vxcan("x1")];

#[test]
fn identifiers_are_recorded_as_they_come() {
    let mut lab = Lab::new("watch", &LINKS);
    let refused = Cangw::Ours.run(&lab.namespace, "watch x0");
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("rule add -s x0 --watch"),
        "{refused:?}"
    );
    for rule in [
        "rule add -s x0 --watch",
        "rule add -s x0 --watch -X",
        "rule add -s x0 -d x1 -m SET:D:0.0.0000000000000000 --exclusive",
    ] {
        Cangw::Ours.must(&lab.namespace, rule);
    }
    let fd_data: Vec<u8> = (0..64).collect();
    for n in 0..5 {
        lab.send("x0p", &Frame::classic(0x123, &[n, 2, 3]));
    }
    lab.send("x0p", &Frame::classic(EFF | 0x123, &[]));
    lab.send("x0p", &Frame::remote(0x123, 4));
    lab.send("x0p", &Frame::fd(0x123, 0, &fd_data));
    assert_eq!(
        lab.take()["x1p"].len(),
        7,
        "they are forwarded all the same"
    );
    let watched = json(&lab.namespace, "watch x0 --json");
    let watched = watched.as_array().expect("a list");
    assert_eq!(watched.len(), 4, "{watched:?}");
    let find = |kind: &str, extended: bool, remote: bool| {
        let found = watched
            .iter()
            .find(|w| w["kind"] == kind && w["extended"] == extended && w["remote"] == remote);
        found.unwrap_or_else(|| panic!("{kind} {extended} {remote} in {watched:?}"))
    };
    let plain = find("classic", false, false);
    assert_eq!(plain["id"], 0x123);
    assert_eq!(plain["count"], 5);
    assert_eq!(
        plain["data"],
        serde_json::json!([4, 2, 3]),
        "before the modification"
    );
    let time = |name: &str| {
        plain[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{name}: {plain}"))
    };
    assert!(time("shortest") > 0.0);
    assert!(time("shortest") <= time("mean") && time("mean") <= time("longest"));
    assert!(time("age") >= 0.0 && time("age") < 600.0);
    assert!(time("last") > 1.6e9, "after the start of 1970");
    let once = find("classic", true, false);
    assert_eq!(
        (&once["count"], &once["mean"]),
        (&1.into(), &serde_json::Value::Null)
    );
    let remote = find("classic", false, true);
    assert_eq!(
        (&remote["len"], &remote["data"]),
        (&4.into(), &serde_json::json!([]))
    );
    assert_eq!(find("fd", false, false)["data"], serde_json::json!(fd_data));
    // Without a terminal it is a table, once.
    let table = Cangw::Ours.must(&lab.namespace, "watch x0");
    let line = table
        .lines()
        .find(|line| line.starts_with("123 ") && line.contains("04 02 03"));
    assert!(line.is_some(), "{table}");
    assert!(!table.contains('\u{1b}'));
    // What was recorded goes with the rule.
    for rule in ["-s x0 --watch", "-s x0 --watch -X"] {
        Cangw::Ours.must(&lab.namespace, &format!("rule delete {rule}"));
    }
    Cangw::Ours.must(&lab.namespace, "rule add -s x0 --watch");
    assert_eq!(
        json(&lab.namespace, "watch x0 --json"),
        serde_json::json!([])
    );
}

/// More identifiers than there is room for are counted, and forwarded.
#[test]
fn what_finds_no_room_is_counted() {
    const ROOM: u32 = 16_384;
    let mut lab = Lab::new("watch-full", &LINKS);
    Cangw::Ours.must(&lab.namespace, "rule add -s x0 -d x1 --watch --exclusive");
    for id in 0..ROOM + 100 {
        lab.post("x0p", &Frame::classic(EFF | id, &[]));
    }
    assert_eq!(lab.take_on("x1p").len() as u32, ROOM + 100);
    let stats = json(&lab.namespace, "stats --json");
    let reasons = &stats["interfaces"][0]["reasons"];
    assert_eq!(reasons["unwatched"], 100, "{reasons}");
}
