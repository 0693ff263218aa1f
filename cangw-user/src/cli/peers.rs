//! `cangw peers`.

use std::io::{self, Write};
use std::time::Duration;

use super::output;
use crate::api::client::Door;
use crate::api::refused;
use crate::api::service::Peers;
use crate::error::Result;
use crate::federation::report::{FederationReport, HostReport};

pub(super) fn run(json: bool) -> Result<()> {
    let Door::Daemon(mut client) = Door::open()? else {
        return Err(refused(
            "buses are shared by cangwd, which does not answer; `systemctl start cangwd` starts it",
        ));
    };
    let all = client.call(Peers {})?;
    if json {
        return output::json(&all);
    }
    output::print(|out| {
        if all.is_empty() {
            writeln!(out, "no topology has a [federation]")?;
        }
        all.iter().try_for_each(|report| write(out, "", report))
    })
}

/// A federation with its hosts, for people. What is 0 is not told, except frames.
pub(super) fn write(
    out: &mut dyn Write,
    indent: &str,
    federation: &FederationReport,
) -> io::Result<()> {
    let FederationReport {
        topology,
        realm,
        host,
        strangers,
        ..
    } = federation;
    write!(
        out,
        "{indent}federation {realm}: host {host}, topology {topology}"
    )?;
    if *strangers != 0 {
        write!(out, ", strangers {strangers}")?;
    }
    end(out, federation.error.as_ref())?;
    for (name, bus) in &federation.buses {
        write!(out, "{indent}  bus {name}")?;
        if !bus.lost_hosts.is_empty() {
            write!(out, " (without {})", bus.lost_hosts.join(", "))?;
        }
        counters(out, ":", &bus.sent.all(), "sent")?;
        end(out, bus.error.as_ref())?;
    }
    federation
        .hosts
        .iter()
        .try_for_each(|host| write_host(out, indent, host))
}

fn write_host(out: &mut dyn Write, indent: &str, host: &HostReport) -> io::Result<()> {
    let since = Duration::from_millis(host.for_ms).as_secs();
    write!(
        out,
        "{indent}  host {}: {} for {since} s",
        host.host,
        host.state.name()
    )?;
    if let Some(about) = &host.announcement {
        let buses = about.buses.join(", ");
        write!(out, ", machine {}, buses {buses}", about.machine)?;
    }
    if let Some(delay) = host.delay_us {
        write!(out, ", delay {}.{:03} ms", delay / 1000, delay % 1000)?;
    }
    writeln!(out)?;
    for (bus, received) in &host.received {
        write!(out, "{indent}    {bus}")?;
        counters(out, ":", &received.all(), "received")?;
        writeln!(out)?;
    }
    Ok(())
}

fn counters(
    out: &mut dyn Write,
    mut before: &str,
    counters: &[(&str, u64)],
    always: &str,
) -> io::Result<()> {
    for (what, count) in counters {
        if *count != 0 || *what == always {
            write!(out, "{before} {what} {count}")?;
            before = ",";
        }
    }
    Ok(())
}

fn end(out: &mut dyn Write, error: Option<&String>) -> io::Result<()> {
    match error {
        Some(error) => writeln!(out, "; {error}"),
        None => writeln!(out),
    }
}
