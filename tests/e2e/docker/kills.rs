//! Daemons that are killed in the middle of what they do: nothing is left behind, and what is there goes on.

use std::path::Path;
use std::thread;
use std::time::Duration;

use cangw_tests::docker::{DRIVER, Docker, IMAGE, call};
use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;
use serde_json::json;

use super::{is_gone, networks, reaches, socket, wait};

/// Steps of a network's life; each is tried again until it succeeds.
fn steps() -> [String; 8] {
    [
        "network create --driver cangw --ipam-driver null -o host_if=can9 car".to_owned(),
        format!("run --detach --network car --name aa {IMAGE} sleep 900"),
        format!("run --detach --network none --name bb {IMAGE} sleep 900"),
        "network disconnect none bb".into(),
        "network connect car bb".into(),
        "network disconnect car bb".into(),
        "rm --force aa bb".into(),
        "network rm car".into(),
    ]
}

/// What says that a step was done before, when its answer was lost.
const DONE: [&str; 5] = [
    "already exists",
    "already in use",
    "is not connected",
    "No such container",
    "No such network",
];

/// As after a restart of the host in which nothing but the disk stays, or when somebody removes what is the driver's: everything comes back, and living
/// containers have their interfaces again.
#[test]
fn of_the_buses_themselves() {
    let namespace = Namespace::new("docker");
    let mut docker = Docker::start(&namespace, &[]);
    docker.must("network create --driver cangw --ipam-driver null -o host_if=can9 -o fd=true car");
    docker.must("network create --driver cangw --ipam-driver null idle");
    let [aa, bb] = ["aa", "bb"].map(|name| docker.container(name, "car"));
    // The driver knows the names of their interfaces by then.
    let is_known = || {
        let found = networks(&docker);
        let text = serde_json::to_string(&found).expect("JSON");
        text.matches("\"interface\":\"can0\"").count() == 2
    };
    wait(is_known);
    docker.cangwd = None;
    namespace.ip("netns del cangw+networks");
    let _ = docker.cangw("reset");
    docker.start_cangwd(&[]);
    let is_back = |container: &Namespace| {
        let links = container.output("ip", &["-brief", "link"]);
        links.contains("can0")
    };
    wait(|| is_back(&aa) && is_back(&bb));
    let (on_aa, on_bb) = (socket(&aa, "can0"), socket(&bb, "can0"));
    let host = socket(&namespace, "can9");
    reaches(&on_aa, &Frame::fd(0x123, 0, &[1; 8]), &[&on_bb, &host], &[]);
    // While it runs, too.
    aa.ip("link del can0");
    wait(|| is_back(&aa));
    let on_aa = socket(&aa, "can0");
    reaches(&on_bb, &Frame::classic(0x124, &[2]), &[&on_aa, &host], &[]);
    docker.must("rm --force aa bb");
    docker.must("network rm car idle");
    is_gone(&docker, &namespace);
}

/// Takes a step until it is done.
fn finish(docker: &Docker<'_>, step: &str) {
    let mut answers = Vec::new();
    for _ in 0..5 {
        let answer = docker.run(step);
        if answer.code == 0 || DONE.iter().any(|done| answer.stderr.contains(done)) {
            // A container that was made and could not be started is there, too.
            if step.starts_with("run") {
                let name = if step.contains("aa") { "aa" } else { "bb" };
                docker.must(&format!("start {name}"));
            }
            return;
        }
        answers.push(answer.stderr);
    }
    panic!("{step}: {answers:#?}");
}

#[test]
fn of_the_driver_in_the_middle_of_each_step() {
    let namespace = Namespace::new("docker");
    let mut docker = Docker::start(&namespace, &[]);
    // Docker does not have a network whose driver ended before it could answer; its interface is free for the next.
    let body = json!({
        "NetworkID": "ab".repeat(32),
        "Options": { "com.docker.network.generic": { "host_if": "can9" } },
    });
    let made = call(Path::new(DRIVER), "CreateNetwork", &body);
    assert_eq!(made, json!({}));
    docker.kill_cangwd();
    docker.must("network create --driver cangw --ipam-driver null -o host_if=can9 car");
    docker.must("network rm car");
    for delay in [20, 250] {
        for step in steps() {
            thread::scope(|scope| {
                let other = docker.client();
                let running = scope.spawn({
                    let step = step.clone();
                    move || other.run(&step)
                });
                thread::sleep(Duration::from_millis(delay));
                docker.kill_cangwd();
                let _ = running.join().expect("it ends");
            });
            finish(&docker, &step);
            if step.starts_with("network connect") {
                let [aa, bb] = ["aa", "bb"].map(|name| docker.namespace_of(name));
                let (aa, bb, host) = (
                    socket(&aa, "can0"),
                    socket(&bb, "can0"),
                    socket(&namespace, "can9"),
                );
                reaches(&aa, &Frame::classic(0x123, &[1]), &[&bb, &host], &[]);
            }
        }
        // What Docker does not know any more, the doctor does.
        let doctor = docker.cangw("doctor --fix");
        assert_eq!(doctor.code, 0, "{doctor:?}");
        is_gone(&docker, &namespace);
    }
}

#[test]
fn of_docker_in_the_middle_of_each_step() {
    let namespace = Namespace::new("docker");
    let mut docker = Docker::start(&namespace, &[]);
    for (number, step) in steps().into_iter().enumerate() {
        thread::scope(|scope| {
            let other = docker.client();
            let running = scope.spawn({
                let step = step.clone();
                move || other.run(&step)
            });
            thread::sleep(Duration::from_millis(100 + 40 * number as u64));
            docker.kill_dockerd();
            let _ = running.join().expect("it ends");
        });
        docker.start_dockerd();
        finish(&docker, &step);
        // A dockerd that starts again takes down what ran.
        for name in ["aa", "bb"] {
            let _ = docker.run(&format!("start {name}"));
        }
    }
    let doctor = docker.cangw("doctor --fix");
    assert_eq!(doctor.code, 0, "{doctor:?}");
    assert_eq!(networks(&docker).len(), 0, "{doctor:?}");
    is_gone(&docker, &namespace);
}
