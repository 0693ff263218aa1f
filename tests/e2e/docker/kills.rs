//! Daemons that are killed in the middle of what they do: nothing is left behind, and what is there goes on.

use std::thread;
use std::time::Duration;

use cangw_tests::docker::{Docker, IMAGE};
use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;

use super::{is_gone, networks, reaches, socket};

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
    for delay in [0, 60, 150, 400] {
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
