//! `cangw top`: what it says, and what it costs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cangw_tests::frame::Frame;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::recording;
use cangw_tests::socket::CanSocket;
use cangw_tests::sys;
use cangw_tests::tool::{Cangw, path_of_cangw};
use serde_json::Value;

const LINKS: [Link; 2] = [Link::Vxcan("x0"), Link::Vxcan("x1")];
/// Frames in a burst, and bursts in a second.
const BURST: usize = 20;
const BURSTS: u32 = 100;
/// How long `top` is watched, in how many parts.
const LENGTH: Duration = Duration::from_secs(24);
const PARTS: u32 = 3;

/// A lab with ten rules that record all identifiers.
fn lab() -> Lab {
    let lab = Lab::new("top", &LINKS);
    Cangw::Ours.must(&lab.namespace, "rule add -s x0 -d x1 --watch");
    for number in 1..10 {
        let rule = format!(
            "rule add -s x0 -d x1 --id {:03X} --priority {number}",
            0x39 + 37 * number
        );
        Cangw::Ours.must(&lab.namespace, &rule);
    }
    lab
}

/// Sends the recording again and again, 2,000 frames a second as far as the guest can, while something is done.
fn beside_traffic<T>(lab: &Lab, frames: &[Frame], work: impl FnOnce() -> T) -> T {
    let sender = CanSocket::open(&lab.namespace, "x0p").deaf();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            let mut bursts = 0;
            let mut frames = frames.iter().cycle();
            while !done.load(Ordering::Relaxed) {
                (&mut frames)
                    .take(BURST)
                    .for_each(|frame| sender.send(frame));
                bursts += 1;
                let next = Duration::from_secs(1) * bursts / BURSTS;
                thread::sleep(next.saturating_sub(begin.elapsed()));
            }
            println!(
                "{:.0} frames a second",
                f64::from(bursts) * BURST as f64 / begin.elapsed().as_secs_f64()
            );
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// How much longer the same work took during a time than it did at best: the guest cannot tell when its processor waits for the host's.
fn slowness(time: Duration) -> f64 {
    let begin = Instant::now();
    let mut samples = Vec::new();
    while begin.elapsed() < time {
        thread::sleep(Duration::from_millis(20));
        let before = sys::thread_time().expect("a clock");
        (0..50_000u32).for_each(|number| {
            std::hint::black_box(number);
        });
        let took = sys::thread_time().expect("a clock") - before;
        samples.push(took.as_secs_f64());
    }
    let best = samples.iter().copied().fold(f64::INFINITY, f64::min);
    samples.iter().sum::<f64>() / samples.len() as f64 / best
}

/// Processor time that a process has had.
fn cpu_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    // The name, in brackets, may have spaces.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();
    let ticks = |at: usize| -> u64 { fields[at].parse().expect("a number") };
    Duration::from_secs(ticks(11) + ticks(12)) / sys::ticks_per_second()
}

/// The first process that another one started.
fn child_of(process: u32) -> u32 {
    let path = format!("/proc/{process}/task/{process}/children");
    let begin = Instant::now();
    loop {
        let children = fs::read_to_string(&path).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().expect("a number");
        }
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "no child of {process}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_follows_the_traffic() {
    let lab = lab();
    let frames = recording::frames();
    let ids: BTreeSet<String> = recording::ids(&frames)
        .into_keys()
        .map(|id| format!("{id:03X}"))
        .collect();
    let rates: Value = beside_traffic(&lab, &frames, || {
        let mut command = Cangw::Ours.command(&lab.namespace);
        command.args(["top", "--json", "--interval", "2"]);
        let child = command.stdout(Stdio::piped()).spawn().expect("cangw runs");
        let mut top = Ended(child);
        let output = BufReader::new(top.0.stdout.take().expect("a pipe"));
        let lines = output.lines().map(|line| line.expect("a line"));
        let last = lines.take(3).last().expect("three looks");
        serde_json::from_str(&last).expect("JSON")
    });
    let found: BTreeSet<String> = rates["ids"]
        .as_array()
        .expect("ids")
        .iter()
        .map(|id| id["id"].as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(found, ids);
    let number = |value: &Value| value.as_f64().expect("a number");
    let interfaces = rates["interfaces"].as_array().expect("interfaces");
    let x0 = interfaces.iter().find(|i| i["name"] == "x0").expect("x0");
    let sum = |list: &Value, key: &str| -> f64 {
        let list = list.as_array().expect("a list").iter();
        list.map(|item| number(&item[key])).sum()
    };
    // Every frame is one of an identifier, and one of the rule that takes all. Looks at the counters are not made in one instant.
    let near = |a: f64, b: f64| (a - b).abs() < 0.1 * a.max(b);
    let rx = number(&x0["rx_rate"]);
    assert!(rx > 100.0, "{x0:#}");
    assert!(near(rx, sum(&rates["ids"], "rate")), "{rates:#}");
    assert!(near(rx, number(&rates["rules"][9]["rate"])), "{rates:#}");
    assert_eq!(rates["rules"].as_array().map(Vec::len), Some(10));

    let text = Cangw::Ours.must(&lab.namespace, "top --once");
    for part in ["interfaces\n", "rules\n", "ids\n", "-s x0 -d x1 --watch"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// On a terminal, with 34 identifiers and 10 rules at 2,000 frames a second.
#[test]
fn it_costs_little() {
    let lab = lab();
    let frames = recording::frames();
    let (used, screen) = beside_traffic(&lab, &frames, || {
        let mut command = lab.namespace.command("script");
        let run = format!(
            "stty rows 50 cols 120; exec {} top",
            path_of_cangw().display()
        );
        command
            .args(["-qfc", &run, "/dev/null"])
            .env("TERM", "xterm-256color");
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script runs");
        let mut script = Ended(child);
        let mut output = script.0.stdout.take().expect("a pipe");
        let screen = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = output.read_to_end(&mut bytes);
            bytes
        });
        let top = child_of(script.0.id());
        // What it takes to start is not what is asked for.
        thread::sleep(Duration::from_secs(3));
        // What others do on the machine only adds to it, also when the guest's processor waits for them.
        let shares = (0..PARTS).map(|_| {
            let (begin, before) = (Instant::now(), cpu_time(top));
            let slower = slowness(LENGTH / PARTS);
            println!("everything takes {slower:.2} times what it took at best");
            (cpu_time(top) - before).as_secs_f64() / begin.elapsed().as_secs_f64() / slower
        });
        let share = shares.fold(f64::INFINITY, f64::min);
        sys::signal(top, libc::SIGTERM).expect("top can be told");
        let status = script.0.wait().expect("script ends");
        assert!(status.success(), "{status}");
        (share, screen.join().expect("an output"))
    });
    println!("{:.1} % of a processor", 100.0 * used);
    let screen = String::from_utf8_lossy(&screen);
    assert!(screen.contains("rules (10)"), "{screen}");
    assert!(screen.contains("(34)"), "{screen}");
    // The other screen is left.
    assert!(screen.contains("\u{1b}[?1049l"), "{screen}");
    assert!(used < 0.05, "{:.1} % of a processor", 100.0 * used);
}
