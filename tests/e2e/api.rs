//! The control socket: who may do what there, what it does, and that nobody harms it or the frames.

mod captured;
mod documented;
mod harm;
mod metrics;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cangw::api::client::Client;
use cangw::api::service::Event;
use cangw_tests::daemon::Daemon;
use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::sys;
use cangw_tests::tool::{Answer, Cangw};
use serde_json::Value;

use crate::daemon::{Down, File};
use crate::topologies::{TWO_BUSES, call};

/// Much longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);
/// A user without rights, and groups that no machine has.
const NOBODY: u32 = 65534;
const CHANGERS: u32 = 64_001;
const READERS: u32 = 64_002;

/// A daemon with a control socket.
struct Served<'a> {
    gateway: &'a Namespace,
    daemon: Daemon,
    state: State,
    socket: PathBuf,
    _file: Option<File>,
    _down: Down<'a>,
}

/// The folder in which it remembers containers' networks.
struct State(PathBuf);

impl State {
    /// The socket at which it is Docker's driver.
    fn docker(&self) -> PathBuf {
        self.0.join("docker.sock")
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl<'a> Served<'a> {
    fn new(gateway: &'a Namespace, topology: &str) -> Self {
        Self::with(gateway, Some(File::new(topology)))
    }

    fn with(gateway: &'a Namespace, file: Option<File>) -> Self {
        let socket = PathBuf::from(format!("/tmp/cangw-api-{}.sock", std::process::id()));
        let path = socket.to_str().expect("a text").to_owned();
        let state = State(PathBuf::from(format!(
            "/tmp/cangw-api-{}",
            std::process::id()
        )));
        fs::create_dir(&state.0).expect("a folder can be made");
        let docker = state.docker();
        let docker = docker.to_str().expect("a text");
        let mut arguments = vec!["--socket", &path, "--docker", docker];
        arguments.extend(file.as_ref().map(File::path));
        Self {
            gateway,
            daemon: Daemon::start_with(gateway, &[("STATE_DIRECTORY", &state.0)], &arguments),
            state,
            socket,
            _file: file,
            _down: Down(gateway),
        }
    }

    /// The answer to a line, on a connection of its own.
    fn ask(&self, request: &str) -> Value {
        let mut client = connect(&self.socket);
        client
            .write_all(format!("{request}\n").as_bytes())
            .expect("a request");
        answer(client)
    }

    /// `cangw` as a user with a group, through the daemon.
    fn cangw(&self, group: u32, arguments: &str) -> Answer {
        let mut command = self.gateway.command("setpriv");
        command
            .args([
                "--reuid",
                &NOBODY.to_string(),
                "--regid",
                &NOBODY.to_string(),
            ])
            .args(["--groups", &group.to_string()])
            .arg(Cangw::Ours.path())
            .args(arguments.split_whitespace())
            .env("CANGW_SOCKET", &self.socket);
        command.output().expect("setpriv runs").into()
    }

    /// Open descriptors of the daemon, and the kilobytes of memory that it has.
    fn resources(&self) -> (usize, u64) {
        let process = PathBuf::from(format!("/proc/{}", self.daemon.id()));
        let descriptors = fs::read_dir(process.join("fd")).expect("descriptors");
        let status = fs::read_to_string(process.join("status")).expect("a status");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let memory = line.and_then(|l| l.trim().split(' ').next()?.parse().ok());
        (descriptors.count(), memory.expect("a number"))
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

fn connect(socket: &Path) -> UnixStream {
    let client = UnixStream::connect(socket).expect("the daemon takes clients");
    client
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket can wait");
    client
}

/// The next line from the daemon.
fn answer(client: UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(client)
        .read_line(&mut line)
        .expect("an answer");
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
}

/// The groups of the daemon's clients, in this guest.
struct Groups;

impl Groups {
    fn new() -> Self {
        let own = Path::new("/tmp/cangw-test-group");
        let mut text = fs::read_to_string("/etc/group").expect("there are groups");
        text += &format!("cangw:x:{CHANGERS}:\ncangw-read:x:{READERS}:\n");
        fs::write(own, text).expect("a file can be written");
        mount(&["--bind", "/tmp/cangw-test-group", "/etc/group"]);
        Self
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("/etc/group").status();
        let _ = fs::remove_file("/tmp/cangw-test-group");
    }
}

fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status();
    assert!(status.expect("mount runs").success(), "{arguments:?}");
}

#[test]
fn groups_say_who_may_do_what() {
    let _groups = Groups::new();
    let gateway = Namespace::new("api");
    let served = Served::new(&gateway, TWO_BUSES);
    const ADD: &str = "rule add -s body -d powertrain -f 111:7FF";
    for (group, looks, changes) in [
        (NOBODY, false, false),
        (READERS, true, false),
        (CHANGERS, true, true),
    ] {
        for (words, may) in [
            ("rule list", looks),
            ("stats --json", looks),
            ("status", looks),
            ("settings show", looks),
            (ADD, changes),
            ("interface set body exclusive on", changes),
            ("settings max-hops 2", changes),
            ("sync", changes),
            ("down car", changes),
        ] {
            let answer = served.cangw(group, words);
            assert_eq!(answer.code == 0, may, "{group}: {words}: {answer:?}");
            if !may {
                let reason = "is for root and members of the group cangw";
                assert!(answer.stderr.contains(reason), "{words}: {answer:?}");
            }
        }
        let there = Cangw::Ours.list(&gateway).len();
        assert_eq!(there, if changes { 1 } else { 3 }, "{group}");
    }
    assert_eq!(call(&gateway, "up", TWO_BUSES).code, 0);
}

/// A socket of an ECU comes to a process that could not open it, and sends.
#[test]
fn an_unprivileged_client_gets_the_socket_of_an_ecu() {
    let _groups = Groups::new();
    let gateway = Namespace::new("api");
    let served = Served::new(&gateway, TWO_BUSES);
    let receiver = CanSocket::open(&Namespace::of_others("car.brakes"), "can0");
    let open = |group: u32, ecu: &str| {
        sys::as_user(NOBODY, group, || {
            let mut client = Client::connect(&served.socket).expect("a daemon");
            let socket = client.open_socket(ecu, "can0", false)?;
            CanSocket::from(socket).send(&Frame::classic(0x123, &[1, 2, 3]));
            Ok::<_, cangw::Error>(())
        })
    };
    open(CHANGERS, "engine").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(receiver.receive(), Frame::classic(0x123, &[1, 2, 3]));
    const MAY_NOT: &str = "is for root and members of the group cangw";
    for (group, ecu, reason) in [
        (READERS, "engine", MAY_NOT),
        (NOBODY, "engine", MAY_NOT),
        (CHANGERS, "motor", "motor does not name one ECU"),
    ] {
        let error = open(group, ecu).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// `cangw` changes the gateway through the daemon, and a topology that it brings up is kept.
#[test]
fn cangw_goes_through_the_daemon() {
    let gateway = Namespace::new("api");
    let served = Served::with(&gateway, None);
    let cangw = |words: &str| -> Answer {
        let mut command = Cangw::Ours.command(&gateway);
        command
            .args(words.split_whitespace())
            .env("CANGW_SOCKET", &served.socket);
        command.output().expect("cangw runs").into()
    };
    let file = "/tmp/cangw-api.toml";
    fs::write(file, TWO_BUSES).expect("a file can be written");
    let answer = cangw(&format!("up {file}"));
    assert!(answer.stderr.contains("+ ECU engine\n"), "{answer:?}");
    assert_eq!(cangw(&format!("diff {file}")).stdout, "");
    // The daemon makes it again.
    gateway.ip("link del body");
    let begin = Instant::now();
    while !call(&gateway, "diff", TWO_BUSES).stdout.is_empty() {
        assert!(begin.elapsed() < PATIENCE, "{}", served.daemon.log());
        thread::sleep(Duration::from_millis(50));
    }
    // Errors are those of cangw itself, with its exit codes.
    for words in [
        "-D -s body -d powertrain",
        "-A -s body -d nothing",
        "rule test -s body --frame x",
    ] {
        let (direct, through) = (Cangw::Ours.run(&gateway, words), cangw(words));
        assert_eq!(direct, through, "{words}");
        assert_ne!(direct.code, 0, "{words}");
    }
    let answer = cangw("down car");
    assert!(answer.stderr.contains("- ECU engine\n"), "{answer:?}");
    thread::sleep(Duration::from_millis(300));
    assert!(!Path::new("/run/netns/car").exists(), "it is kept no more");
    let _ = fs::remove_file(file);
}

/// What happens comes to clients that listen.
#[test]
fn events_are_told() {
    let gateway = Namespace::new("api");
    let served = Served::new(&gateway, TWO_BUSES);
    let client = Client::connect(&served.socket).expect("a daemon");
    let mut events = client.events().expect("events");
    let mut until = |what: &str, is_it: &dyn Fn(&Event) -> bool| {
        let found = events.any(|event| is_it(&event.expect("an event")));
        assert!(found, "no more events: {what}");
    };
    // Nobody knows when the first look is made, with which the others are compared.
    let mut number = 0;
    let appears = |name: String| gateway.ip(&format!("link add {name} type vcan"));
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        scope.spawn(move || {
            while told.recv_timeout(Duration::from_secs(1)).is_err() {
                number += 1;
                appears(format!("new{number}"));
            }
        });
        until(
            "an interface",
            &|event| matches!(event, Event::Interface { name, present: true, up: false, .. } if name.starts_with("new")),
        );
        tell.send(()).expect("a thread");
    });
    gateway.ip("link set body down");
    until(
        "it goes down",
        &|event| matches!(event, Event::Interface { name, up: false, .. } if name == "body"),
    );
    gateway.ip("link set body up");
    Cangw::Ours.must(&gateway, "-A -s body -d powertrain -f 111:7FF");
    until(
        "a rule",
        &|event| matches!(event, Event::Rule { rule, present: true, waiting_for: None } if rule.contains("111:7FF")),
    );
    Cangw::Ours.must(&gateway, "-D -s body -d powertrain -f 111:7FF");
    until(
        "a rule is gone",
        &|event| matches!(event, Event::Rule { rule, present: false, .. } if rule.contains("111:7FF")),
    );
    // The route of the fuel level takes 10 frames a second.
    let engine = CanSocket::open(&Namespace::of_others("car.engine"), "can0");
    for _ in 0..50 {
        engine.send(&Frame::classic(0x1F0, &[1]));
    }
    until(
        "frames above a rate",
        &|event| matches!(event, Event::Overload { rule, frames } if rule.contains("--rate 10/s") && *frames > 0),
    );
}
