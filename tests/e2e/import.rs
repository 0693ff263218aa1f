//! Rules move from can-gw to ours, and into files and back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use cangw_tests::frame::Frame;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::module;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::sys;
use cangw_tests::tool::{Answer, Cangw, json, load};

use crate::drop_in::script::MaxHops;
use cangw_tests::backlog::Backlog;

const LINKS: [Link; 4] = [
    Link::Vcan("v0"),
    Link::Vcan("v1"),
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
];

/// Rules of all kinds, oldest first. Some frames meet more than one.
fn rules() -> Vec<String> {
    let table: String = (0..256u32)
        .map(|i| format!("{:02X}", i * 29 % 256))
        .collect();
    let data: String = (0..64u32).map(|i| format!("{i:02X}")).collect();
    vec![
        "-s x0 -d x1".into(),
        "-s x0 -d v0 -e -f 123:C00007FF".into(),
        "-s x0 -d v0 -e -f 123:C00007FF".into(),
        "-s v0 -d x1 -t -i -l 1 -f 80000123~9FFFFFFF".into(),
        "-s x0 -d v1 -e -f 000:20000004".into(),
        "-s x1 -d x0 -X".into(),
        "-s v1 -d v1 -i -f 000~0".into(),
        "-s x0 -d x1 -m SET:IL:333.4.1122334455667788".into(),
        format!(
            "-s x0 -d v1 -e -m AND:I:7FF.0.0000000000000000 -m OR:L:000.1.0000000000000000 \
             -m XOR:D:000.0.00000000000000FF -m SET:D:000.0.0102030405060708 -u CAFE1234 \
             -c -8:7:-1:0A:FF:{table} -p 2:00112233445566778899AABBCCDDEEFF -x 0:6:7:5A -f 120:7F0"
        ),
        format!("-s x0 -d x1 -m SET:I:111.0.0000000000000000 -c 0:1:2:01:02:{table} -p 1:AB"),
        format!("-s x0 -d x1 -m SET:I:112.0.0000000000000000 -c 0:1:2:01:02:{table} -p 3:"),
        format!(
            "-s x1 -d x0 -X -M AND:F:000.1.0.{data} -M SET:IFLD:333.5.40.{data} \
             -c 0:62:63:00:00:{table} -x -64:63:-1:FF"
        ),
    ]
}

fn add_to_can_gw(namespace: &Namespace, rules: &[impl AsRef<str>]) {
    for rule in rules {
        let rule = rule.as_ref();
        Cangw::CanUtils.must(namespace, &format!("-A {rule}"));
    }
}

/// The lists of rules, without counters, newest first.
fn rules_of(tool: Cangw, namespace: &Namespace) -> Vec<String> {
    tool.list(namespace).into_iter().map(|r| r.rule).collect()
}

#[test]
fn rules_move_as_they_are() {
    let mut lab = Lab::new("import", &LINKS);
    add_to_can_gw(&lab.namespace, &rules());
    let frames = |lab: &mut Lab| {
        for id in [0x123, 0x124, 0x8000_0123, 0x2000_0004] {
            lab.send("x0p", &Frame::classic(id, &[1, 2, 3]));
        }
        lab.send("x1p", &Frame::fd(0x123, 0, &[7; 12]));
        lab.take()
    };
    let by_can_gw = frames(&mut lab);

    let namespace = &lab.namespace;
    let text = Cangw::CanUtils.run(namespace, "-L").stdout;
    let mut listed: Vec<&str> = text.lines().collect();
    listed.reverse();
    assert_eq!(listed.len(), rules().len());
    let dry = Cangw::Ours.must(namespace, "import --dry-run");
    assert_eq!(dry.lines().collect::<Vec<_>>(), listed);
    let parsed = json(namespace, "import --dry-run --json");
    let parsed = parsed.as_array().expect("a list of rules");
    assert_eq!(parsed.len(), listed.len());
    let oldest = Cangw::CanUtils.list(namespace).pop().expect("a rule");
    assert_eq!(parsed[0]["handled"], oldest.handled);
    assert_eq!(Cangw::CanUtils.run(namespace, "-L").stdout, text, "dry run");
    assert_eq!(Cangw::Ours.list(namespace), []);

    let before = rules_of(Cangw::CanUtils, namespace);
    let imported = Cangw::Ours.run(namespace, "import");
    assert_eq!(imported.code, 0, "{imported:?}");
    assert_eq!(imported.stdout, dry);
    assert!(
        imported.stderr.contains("12 rules imported"),
        "{imported:?}"
    );
    assert_eq!(Cangw::CanUtils.list(namespace), []);
    assert_eq!(rules_of(Cangw::Ours, namespace), before);
    let ours = Cangw::Ours.list(namespace);
    assert!(ours.iter().all(|r| r.handled + r.dropped + r.deleted == 0));
    assert_eq!(frames(&mut lab), by_can_gw, "the same frames arrive");

    let again = Cangw::Ours.run(&lab.namespace, "import");
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stderr.contains("nothing to import"), "{again:?}");
    assert_eq!(rules_of(Cangw::Ours, &lab.namespace), before);
}

#[test]
fn nothing_to_import_without_can_gw() {
    let lab = Lab::new("import", &[Link::Vcan("v0")]);
    // Routes of other families must not be taken for rules.
    lab.namespace.ip("addr add 10.0.0.1/24 dev lo");
    module::unload("can-gw");
    let answers = ["import", "import --dry-run", "import --json"]
        .map(|arguments| Cangw::Ours.run(&lab.namespace, arguments));
    module::load("can-gw", &[]);
    for answer in answers {
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(answer.stderr.contains("nothing to import"), "{answer:?}");
    }
}

#[test]
fn what_fails_gives_can_gw_its_rules_back() {
    let mut lab = Lab::new("import", &LINKS);
    let namespace = &lab.namespace;
    add_to_can_gw(
        namespace,
        &[
            "-s v0 -d x1 -f 1:7FF",
            "-s x0 -d x1 -u 5 -m SET:L:0.1.0000000000000000",
            "-s v0 -d x1",
        ],
    );
    let mut before = rules_of(Cangw::CanUtils, namespace);
    before.sort();
    // Somebody else's filter stands where ours belongs, on the interface whose turn comes later.
    let tc = |arguments: &str| {
        let words: Vec<_> = arguments.split(' ').collect();
        let _ = namespace.output("tc", &words);
    };
    tc("qdisc add dev x0 clsact");
    tc("filter add dev x0 ingress prio 51712 protocol all matchall action pass");
    let answer = Cangw::Ours.run(namespace, "import");
    assert_ne!(answer.code, 0, "{answer:?}");
    assert!(answer.stderr.contains("no rule was imported"), "{answer:?}");
    assert!(
        answer.stderr.contains("can-gw has its rules again"),
        "{answer:?}"
    );
    let mut after = rules_of(Cangw::CanUtils, namespace);
    // Those of an interface are in their order, the newest first.
    let of_v0 = |rule: &&String| rule.starts_with("-s v0 ");
    assert_eq!(
        after.iter().filter(of_v0).collect::<Vec<_>>(),
        ["-s v0 -d x1", "-s v0 -d x1 -f 001:7FF"]
    );
    after.sort();
    assert_eq!(after, before);
    assert_eq!(Cangw::Ours.list(namespace), []);
    tc("qdisc del dev x0 clsact");
    lab.send("v0", &Frame::classic(0x2, &[]));
    assert_eq!(lab.take_on("x1p"), [Frame::classic(0x2, &[])]);

    Cangw::Ours.must(&lab.namespace, "import");
    assert_eq!(Cangw::CanUtils.list(&lab.namespace), []);
    lab.send("v0", &Frame::classic(0x2, &[]));
    assert_eq!(lab.take_on("x1p"), [Frame::classic(0x2, &[])]);
}

/// Frames that go both ways with an echo would run in circles if one direction were can-gw's and the other ours.
#[test]
fn no_frame_arrives_twice() {
    const ROUNDS: usize = 6;
    let lab = Lab::new("import", &LINKS);
    let namespace = &lab.namespace;
    let rules = [
        "-s v0 -d v1 -e",
        "-s v0 -d x1 -f 456:7FF",
        "-s v1 -d v0 -e",
        "-s x0 -d v0 -e",
        "-s v1 -d x1",
    ];
    let _backlog = Backlog::raise();
    let sender = CanSocket::open(namespace, "v0").deaf();
    let watchers = ["v0", "v1"].map(|name| (name, CanSocket::open(namespace, name)));
    let (sent, done) = (AtomicU32::new(0), AtomicBool::new(false));
    let moved = thread::scope(|scope| {
        scope.spawn(|| {
            sys::pin_to_cpu(0).expect("a thread may choose its processor");
            while !done.load(Ordering::Relaxed) {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                sender.send(&Frame::classic(0x123, &number.to_le_bytes()));
                thread::sleep(Duration::from_micros(300));
            }
        });
        // However the rounds end, the sender must.
        let answer = std::panic::catch_unwind(|| {
            for _ in 0..ROUNDS {
                add_to_can_gw(namespace, &rules);
                Cangw::Ours.must(namespace, "import");
                assert_eq!(Cangw::CanUtils.list(namespace), []);
                assert_eq!(Cangw::Ours.list(namespace).len(), rules.len());
                Cangw::Ours.must(namespace, "-F");
            }
        });
        done.store(true, Ordering::Relaxed);
        answer
    });
    if let Err(panic) = moved {
        std::panic::resume_unwind(panic);
    }
    let sent = sent.into_inner();
    for (name, watcher) in watchers {
        let numbers: Vec<u32> = watcher
            .drain()
            .iter()
            .map(|frame| u32::from_le_bytes(frame.data().try_into().expect("a number")))
            .collect();
        assert_eq!(watcher.lost(), 0, "{name}: the watcher lost frames");
        for pair in numbers.windows(2) {
            assert!(
                pair[0] < pair[1],
                "{name}: {} came after {}",
                pair[1],
                pair[0]
            );
        }
        println!("{name}: {} of {sent} frames", numbers.len());
        if name == "v0" {
            assert_eq!(
                numbers.len(),
                sent as usize,
                "all frames are seen where they are sent"
            );
        }
    }
}

#[test]
fn max_hops_comes_along() {
    let lab = Lab::new("import", &LINKS);
    let namespace = &lab.namespace;
    let hops = MaxHops::remember();
    hops.set(Cangw::CanUtils, namespace, 4);
    let setting = || json(namespace, "settings show --json")["max_hops"].clone();
    let rule = ["-s x0 -d x1 -l 3"];

    // With rules of its own, the gateway keeps its setting, and what does not go with it is refused.
    Cangw::Ours.must(namespace, "-A -s v0 -d v1");
    add_to_can_gw(namespace, &rule);
    let refused = Cangw::Ours.run(namespace, "import");
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(
        refused.stderr.contains("hop limit 3 is above max-hops 1"),
        "{refused:?}"
    );
    assert_eq!(rules_of(Cangw::CanUtils, namespace), rule);
    assert_eq!(
        (setting(), Cangw::Ours.list(namespace).len()),
        (1.into(), 1)
    );

    Cangw::Ours.must(namespace, "-F");
    let dry = Cangw::Ours.run(namespace, "import --dry-run");
    assert!(
        dry.stderr.contains("max-hops would be raised to 4"),
        "{dry:?}"
    );
    assert_eq!(setting(), 1);
    let imported = Cangw::Ours.run(namespace, "import");
    assert_eq!(imported.code, 0, "{imported:?}");
    assert!(
        imported.stderr.contains("max-hops is 4 now"),
        "{imported:?}"
    );
    assert_eq!(
        (setting(), rules_of(Cangw::Ours, namespace)),
        (4.into(), rule.map(str::to_owned).to_vec())
    );
}

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("cangw-export-{}", std::process::id()));
        fs::create_dir(&path).expect("a folder for files");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_exported_can_be_loaded() {
    let lab = Lab::new("import", &LINKS);
    let namespace = &lab.namespace;
    let folder = Folder::new();
    Cangw::Ours.must(namespace, "settings max-hops 3");
    Cangw::Ours.must(namespace, "interface set v0 exclusive on");
    Cangw::Ours.must(namespace, "interface set x0 engine tc");
    let lines: String = rules().iter().map(|rule| format!("{rule}\n")).collect();
    load(namespace, &lines);
    let everything = || {
        let interfaces = json(namespace, "interface list --json");
        (
            rules_of(Cangw::Ours, namespace),
            interfaces,
            json(namespace, "settings show --json"),
        )
    };
    let before = everything();
    let forget = || {
        Cangw::Ours.must(namespace, "-F");
        Cangw::Ours.must(namespace, "settings reset");
        assert_eq!(
            Cangw::Ours
                .must(namespace, "export --format toml")
                .lines()
                .count(),
            2
        );
    };
    for format in ["script", "toml"] {
        let text = Cangw::Ours.must(namespace, &format!("export --format {format}"));
        let path = folder.0.join(format);
        let path_text = path.display().to_string();
        Cangw::Ours.must(
            namespace,
            &format!("export --format {format} -o {path_text}"),
        );
        assert_eq!(fs::read_to_string(&path).expect("the file is there"), text);
        let mode = fs::metadata(&path)
            .expect("the file is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        forget();
        Cangw::Ours.must(namespace, &format!("rule load {path_text}"));
        assert_eq!(everything(), before, "{format}");
        assert_eq!(
            Cangw::Ours.must(namespace, &format!("export --format {format}")),
            text
        );
    }

    // The script runs by itself, too.
    forget();
    std::os::unix::fs::symlink(Cangw::Ours.path(), folder.0.join("cangw")).expect("a link");
    let answer: Answer = namespace
        .command("/bin/sh")
        .arg(folder.0.join("script"))
        .env("PATH", &folder.0)
        .output()
        .expect("a shell runs")
        .into();
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(everything(), before);

    // A file with a mistake changes nothing, its settings included.
    let broken = folder.0.join("broken");
    let text =
        "version = 1\n[settings]\nmax_hops = 5\n[[rule]]\nsource = \"x0\"\ntarget = \"nosuch\"\n";
    fs::write(&broken, text).expect("a file");
    let refused = Cangw::Ours.run(namespace, &format!("rule load {}", broken.display()));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("nosuch"), "{refused:?}");
    fs::write(&broken, text.replace("target", "goal")).expect("a file");
    let refused = Cangw::Ours.run(namespace, &format!("rule load {}", broken.display()));
    assert!(refused.stderr.contains("line 6: rule.goal"), "{refused:?}");
    assert_eq!(everything(), before);
}
