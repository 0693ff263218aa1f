//! `cangw up`, `down`, `diff`, `graph`, `status`, `exec`, `shell`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::commands::read;
use super::{output, peers, tunnel};
use crate::api::client::Door;
use crate::api::methods::{Diff, Done, Down, Status, Up};
use crate::error::Result;
use crate::topology::graph::{Format, draw};
use crate::topology::host::{BusReport, Host};
use crate::topology::{EcuHandle, Topology, is_name};

fn parse(file: &str) -> Result<Topology> {
    Topology::parse(file, &read(file)?)
}

fn tell(line: &dyn fmt::Display) {
    eprintln!("{line}");
}

pub(super) fn up(file: &str) -> Result<()> {
    let text = read(file)?;
    let topology = Topology::parse(file, &text)?;
    // Names of DBC files are looked up here only.
    let is_plain = Topology::parse_alone(file, &text).is_ok();
    match Door::open()? {
        Door::Daemon(mut client) if is_plain => {
            let file = file.to_owned();
            client.call(Up { file, text }).map(say)
        }
        _ => {
            Host::open()?.up(&topology, &mut tell)?;
            if !topology.tunnels.is_empty() || topology.federation.is_some() {
                tell(
                    &"tunnels and federations are run by cangwd only: put the file into /etc/cangw, and `systemctl reload cangwd` takes it up",
                );
            }
            Ok(())
        }
    }
}

/// Says what was done.
fn say(done: Done) {
    done.steps.iter().for_each(|step| tell(step));
    done.notes.iter().for_each(|note| tell(note));
}

pub(super) fn down(topology: &str) -> Result<()> {
    let name = if is_name(topology) {
        topology.to_owned()
    } else {
        parse(topology)?.name
    };
    let mut is_up = false;
    match Door::open()? {
        Door::Daemon(mut client) => {
            let topology = name.clone();
            let done = client.call(Down { topology })?;
            is_up = !done.steps.is_empty();
            say(done);
        }
        Door::Direct => Host::open()?.down(&name, &mut |step| {
            is_up = true;
            tell(step);
        })?,
    }
    if !is_up {
        eprintln!("cangw: no topology {name} is up; `cangw status` shows those that are");
    }
    Ok(())
}

pub(super) fn diff(file: &str) -> Result<()> {
    let text = read(file)?;
    let topology = Topology::parse(file, &text)?;
    let is_plain = Topology::parse_alone(file, &text).is_ok();
    let steps = match Door::open()? {
        Door::Daemon(mut client) if is_plain => {
            let file = file.to_owned();
            client.call(Diff { file, text })?.steps
        }
        _ => {
            let steps = Host::open()?.diff(&topology.name, &topology.shape())?;
            steps.iter().map(ToString::to_string).collect()
        }
    };
    output::print(|out| steps.iter().try_for_each(|step| writeln!(out, "{step}")))
}

pub(super) fn graph(file: &str, format: Format) -> Result<()> {
    let picture = draw(&parse(file)?, format);
    output::print(|out| write!(out, "{picture}"))
}

pub(super) fn status(json: bool) -> Result<()> {
    let all = Door::open()?.call(Status {})?;
    if json {
        return output::json(&all);
    }
    output::print(|out| {
        for topology in &all {
            writeln!(out, "topology {}", topology.name)?;
            for (bus, BusReport { lost }) in &topology.buses {
                let interfaces = topology.ecus.iter().flat_map(|(ecu, interfaces)| {
                    let on_bus = interfaces.iter().filter(|(_, b)| *b == bus);
                    on_bus.map(move |(interface, _)| format!(" {ecu}:{interface}"))
                });
                let lost = match lost {
                    0 => String::new(),
                    frames => format!(", lost {frames}"),
                };
                writeln!(out, "  bus {bus}:{}{lost}", interfaces.collect::<String>())?;
            }
            for report in &topology.tunnels {
                tunnel::write(out, "  ", report)?;
            }
            if let Some(federation) = &topology.federation {
                peers::write(out, "  ", federation)?;
            }
            for route in &topology.routes {
                let waits = route.waiting_for.as_ref();
                let waits = waits.map(|name| format!(", waits for {name}"));
                writeln!(
                    out,
                    "  route {}: {} handled, {} dropped, {} deleted{}",
                    route.rule,
                    route.handled,
                    route.dropped,
                    route.deleted,
                    waits.unwrap_or_default()
                )?;
            }
        }
        Ok(())
    })
}

pub(super) fn exec(ecu: &str, command: &[OsString]) -> Result<()> {
    let mut words = command.iter();
    let program = words.next().map_or(OsStr::new("true"), OsString::as_os_str);
    let mut command = Command::new(program);
    command.args(words);
    Err(EcuHandle::open(ecu)?.exec(as_caller(command)))
}

pub(super) fn shell(ecu: &str) -> Result<()> {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut command = Command::new(shell);
    command.env("CANGW_ECU", ecu);
    Err(EcuHandle::open(ecu)?.exec(as_caller(command)))
}

/// Lets a program run as the user who called sudo.
fn as_caller(mut command: Command) -> Command {
    let id = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
        command.uid(user).gid(group);
    }
    command
}
