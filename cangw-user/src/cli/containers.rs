//! `cangw networks` and `cangw doctor`.

use serde::Serialize;

use super::output;
use crate::api::client::Door;
use crate::api::methods::Networks as Ask;
use crate::containers::doctor::Orphan;
use crate::containers::fabric::Kernel;
use crate::containers::names::short;
use crate::containers::networks::Networks;
use crate::containers::{dockerd, folder};
use crate::error::{Error, Result};
use crate::reset::dead_pins;

pub(super) fn networks(json: bool) -> Result<()> {
    let all = Door::open()?.call(Ask {})?;
    if json {
        return output::json(&all);
    }
    output::print(|out| {
        for network in &all {
            let options = network.options.iter();
            let options = options.map(|(key, value)| format!(" {key}={value}"));
            writeln!(
                out,
                "network {} of {}{}",
                short(&network.id),
                network.engine.name(),
                options.collect::<String>()
            )?;
            for port in &network.ports {
                let kept = port
                    .kept_back()
                    .into_iter()
                    .filter(|(_, frames)| *frames != 0);
                let kept = kept.map(|(reason, frames)| format!(", {reason} {frames}"));
                writeln!(
                    out,
                    "  {}: sent {}, received {}{}{}",
                    port.name(),
                    port.sent,
                    port.received,
                    kept.collect::<String>(),
                    if port.up { "" } else { ", not there" }
                )?;
            }
        }
        Ok(())
    })
}

/// What `cangw doctor` found.
#[derive(Serialize)]
struct Finding {
    #[serde(flatten)]
    orphan: Orphan,
    /// For people.
    what: String,
    /// Whether it is gone now.
    removed: bool,
}

/// Lists what was left behind, and removes it when that is wanted.
pub(super) fn doctor(fix: bool, json: bool) -> Result<()> {
    crate::capability::require("looking for what was left behind")?;
    let networks = Networks::new(&folder(), Kernel);
    let docker = match dockerd::networks() {
        Ok(docker) => docker,
        Err(e) => {
            eprintln!("cangw: {e:#}");
            None
        }
    };
    if docker.is_none() && networks.has_docker()? {
        eprintln!(
            "cangw: {} does not answer, so Docker's networks are not compared with what is here",
            dockerd::socket().display()
        );
    }
    let mut orphans = networks.orphans(docker.as_ref())?;
    orphans.extend(dead_pins()?.into_iter().map(Orphan::Pins));
    let mut findings = Vec::new();
    let mut failed = None;
    for orphan in orphans {
        let result = fix.then(|| networks.remove(&orphan));
        let removed = matches!(result, Some(Ok(())));
        if let Some(Err(e)) = result {
            eprintln!("cangw: {orphan}: {e}");
            failed = Some(e);
        }
        findings.push(Finding {
            what: orphan.to_string(),
            orphan,
            removed,
        });
    }
    if json {
        output::json(&findings)?;
    } else {
        output::print(|out| {
            if findings.is_empty() {
                writeln!(out, "nothing was left behind")?;
            }
            for finding in &findings {
                let sign = if finding.removed { '-' } else { '!' };
                writeln!(out, "{sign} {}", finding.what)?;
            }
            Ok(())
        })?;
    }
    match failed {
        Some(e) => Err(e),
        None if findings.is_empty() || fix => Ok(()),
        None => Err(Error::Container {
            message: "something was left behind; `cangw doctor --fix` removes it".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn findings_are_objects_for_programs() {
        let found = |orphan: Orphan| {
            let finding = Finding {
                what: "x".into(),
                orphan,
                removed: true,
            };
            serde_json::to_value(finding).expect("JSON")
        };
        let (id, network) = ("cd".to_owned(), "ab".to_owned());
        assert_eq!(
            found(Orphan::Network("ab".into())),
            json!({ "network": "ab", "what": "x", "removed": true })
        );
        assert_eq!(
            found(Orphan::Endpoint { id, network }),
            json!({ "endpoint": { "id": "cd", "network": "ab" }, "what": "x", "removed": true })
        );
    }
}
