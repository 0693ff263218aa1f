//! The contestants that run in a kernel: can-gw and our gateway. Each has a thread of its own, on a processor of its own where there are two.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use cangw_tests::can_gw::{CanGw, Change};
use cangw_tests::diff::case::{Case, Step};
use cangw_tests::diff::contestant::Observation;
use cangw_tests::diff::network::{IDLE, Network};
use cangw_tests::diff::rule::Rule;
use cangw_tests::sys;
use cangw_tests::tool::{Answer, Cangw};

use crate::ours;

/// How rules are changed and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By netlink, or by our library.
    Direct,
    /// By a process of cangw for each rule.
    Commands,
    /// The same, but rules that are added one after the other are given to our `cangw rule load`.
    Load,
}

/// A contestant on its thread.
pub struct Worker {
    /// None when it is to end.
    tasks: Option<mpsc::Sender<Task>>,
    results: mpsc::Receiver<Option<Observation>>,
    thread: Option<thread::JoinHandle<()>>,
}

enum Task {
    MaxHops(u8),
    Run(Case, Way),
}

impl Worker {
    pub fn start(tool: Cangw, processor: usize) -> Self {
        let (tasks, inbox) = mpsc::channel();
        let (outbox, results) = mpsc::channel();
        let thread = thread::spawn(move || {
            sys::pin_to_cpu(processor).expect("a thread may choose its processor");
            let mut contestant = Contestant::new(tool);
            for task in inbox {
                let result = match task {
                    Task::MaxHops(hops) => {
                        contestant.set_max_hops(hops);
                        None
                    }
                    Task::Run(case, way) => Some(contestant.run(&case, way)),
                };
                if outbox.send(result).is_err() {
                    break;
                }
            }
        });
        Self {
            tasks: Some(tasks),
            results,
            thread: Some(thread),
        }
    }

    pub fn set_max_hops(&self, hops: u8) {
        self.give(Task::MaxHops(hops));
        self.result();
    }

    /// Begins a case, so that others can run it meanwhile.
    pub fn begin(&self, case: &Case, way: Way) {
        self.give(Task::Run(case.clone(), way));
    }

    /// Waits until the case that was begun has ended.
    pub fn end(&self) -> Observation {
        self.result().expect("a case was begun")
    }

    fn result(&self) -> Option<Observation> {
        self.results.recv().expect("a contestant said why it ended")
    }

    fn give(&self, task: Task) {
        let sent = self.tasks.as_ref().map(|tasks| tasks.send(task));
        assert!(
            matches!(sent, Some(Ok(()))),
            "a contestant said why it ended"
        );
    }
}

/// Its namespaces are gone with the thread.
impl Drop for Worker {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // When it panicked, it said why.
            let _ = thread.join();
        }
    }
}

struct Contestant {
    tool: Cangw,
    network: Network,
    can_gw: CanGw,
}

impl Contestant {
    fn new(tool: Cangw) -> Self {
        let network = Network::new("diff");
        // Sockets that the libraries open are in the namespace of this thread.
        network.inner.enter_for_good();
        let can_gw = CanGw::open(network.names().clone()).expect("a netlink socket");
        let contestant = Self {
            tool,
            network,
            can_gw,
        };
        contestant.stay_loaded();
        contestant
    }

    /// The kernel takes seconds to check our programs, and they are gone with the last rule.
    fn stay_loaded(&self) {
        if self.tool == Cangw::Ours {
            self.tool
                .must(&self.network.inner, &format!("-A -i -s {IDLE} -d {IDLE}"));
        }
    }

    fn set_max_hops(&mut self, hops: u8) {
        match self.tool {
            Cangw::CanUtils => load_can_gw(hops),
            Cangw::Ours => ours::set_max_hops(hops),
        }
    }

    fn run(&mut self, case: &Case, way: Way) -> Observation {
        // The gateway's hops, one across a pair, and one to spare.
        let rounds = u32::from(case.max_hops) + 2;
        let mut codes = Vec::new();
        let mut steps = case.steps.iter().peekable();
        while let Some(step) = steps.next() {
            match step {
                Step::Add(rule) => {
                    let mut rules = vec![rule];
                    while let Some(rule) = steps.peek().and_then(|step| step.added()) {
                        rules.push(rule);
                        steps.next();
                    }
                    codes.extend(self.add(&rules, way));
                }
                Step::Delete(rule) => codes.push(self.delete(rule, way)),
                Step::Send(on, frame) => self.network.send(on, frame, rounds),
            }
        }
        let seen = Observation {
            codes,
            seen: self.network.take(),
            list: self.list(way),
        };
        self.flush(way);
        seen
    }

    fn add(&self, rules: &[&Rule], way: Way) -> Vec<i32> {
        if self.tool == Cangw::Ours && rules.len() > 1 && way != Way::Commands {
            let all = match way {
                Way::Load => self.load(rules),
                _ => ours::add(rules),
            };
            if all == 0 {
                return vec![0; rules.len()];
            }
            // All or none, so that now it is to be found out which is not.
        }
        let each = |rule: &&Rule| match (way, self.tool) {
            (Way::Direct, Cangw::Ours) => ours::add(&[rule]),
            (Way::Direct, Cangw::CanUtils) => self.change(Change::Add(rule)),
            _ => self.command(&format!("-A {}", rule.options())),
        };
        rules.iter().map(each).collect()
    }

    fn delete(&self, rule: &Rule, way: Way) -> i32 {
        match (way, self.tool) {
            (Way::Direct, Cangw::Ours) => ours::delete(rule),
            (Way::Direct, Cangw::CanUtils) => self.change(Change::Delete(rule)),
            _ => self.command(&format!("-D {}", rule.options())),
        }
    }

    fn list(&self, way: Way) -> String {
        let list = match (way, self.tool) {
            (Way::Direct, Cangw::Ours) => ours::list(),
            (Way::Direct, Cangw::CanUtils) => self.can_gw.list().expect("can-gw lists its rules"),
            _ => self.tool.run(&self.network.inner, "-L").stdout,
        };
        let of_the_case = |line: &&str| !line.contains(IDLE);
        list.split_inclusive('\n').filter(of_the_case).collect()
    }

    fn flush(&self, way: Way) {
        let code = match (way, self.tool) {
            (Way::Direct | Way::Commands, Cangw::Ours) => ours::flush(),
            (Way::Direct, Cangw::CanUtils) => self.change(Change::Flush),
            _ => self.command("-F"),
        };
        assert_eq!(code, 0, "{:?} cannot flush its rules", self.tool);
        if way == Way::Load {
            self.stay_loaded();
        }
    }

    fn change(&self, change: Change<'_>) -> i32 {
        match self.can_gw.change(change) {
            Ok(0) => 0,
            Ok(errno) => 256 - errno,
            Err(e) => panic!("asking can-gw: {e}"),
        }
    }

    fn command(&self, arguments: &str) -> i32 {
        self.tool.run(&self.network.inner, arguments).code
    }

    fn load(&self, rules: &[&Rule]) -> i32 {
        let text: String = rules.iter().map(|rule| rule.options() + "\n").collect();
        let mut command: Command = self.tool.command(&self.network.inner);
        command
            .args(["rule", "load", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("cangw runs");
        let pipe = child.stdin.take().expect("standard input is a pipe");
        std::io::Write::write_all(&mut { pipe }, text.as_bytes()).expect("cangw reads its rules");
        Answer::from(child.wait_with_output().expect("cangw ends")).code
    }
}

/// Loads can-gw anew; its parameter cannot be changed otherwise.
fn load_can_gw(max_hops: u8) {
    let arguments = format!("max_hops={max_hops}");
    for words in [
        ["rmmod", "can-gw"].as_slice(),
        &["modprobe", "can-gw", &arguments],
    ] {
        let status = Command::new(words[0]).args(&words[1..]).status();
        assert!(status.is_ok_and(|s| s.success()), "{words:?} failed");
    }
}
