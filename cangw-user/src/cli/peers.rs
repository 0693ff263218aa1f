//! `cangw peers`.

use std::io::{self, Write};
use std::time::Duration;

use super::output;
use crate::api::client::Door;
use crate::api::service::Peers;
use crate::error::Result;
use crate::federation::report::{FederationReport, HostReport};

pub(super) fn run(json: bool) -> Result<()> {
    let all = Door::daemon("buses are shared")?.call(Peers {})?;
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
    output::counters(out, ",", &[("strangers", *strangers)], &[])?;
    output::end(out, federation.error.as_deref())?;
    for (name, bus) in &federation.buses {
        write!(out, "{indent}  bus {name}")?;
        if !bus.lost_hosts.is_empty() {
            write!(out, " (without {})", bus.lost_hosts.join(", "))?;
        }
        output::counters(out, ":", &bus.sent.all(), &["sent"])?;
        output::end(out, bus.error.as_deref())?;
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
        output::counters(out, ":", &received.all(), &["received"])?;
        writeln!(out)?;
    }
    Ok(())
}
