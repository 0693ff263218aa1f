//! `cangw rule test`: what would become of a frame.

use super::output;
use crate::api::client::Door;
use crate::api::methods::RuleTest;
use crate::error::Result;
use crate::gateway::{Does, Verdict};

pub(super) fn run(interface: &str, frame: &str, json: bool) -> Result<()> {
    let (source, frame) = (interface.to_owned(), frame.to_owned());
    let verdict = Door::open()?.call(RuleTest { source, frame })?;
    if json {
        return output::json(&verdict);
    }
    output::print(|out| out.write_all(text(&verdict).as_bytes()))
}

fn text(verdict: &Verdict) -> String {
    let mut text = format!("{} on {}\n", verdict.frame, verdict.interface);
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    for rule in &verdict.rules {
        line(format!("  {}", rule.rule));
        let target = rule.target.as_deref().unwrap_or("?");
        line(match rule.does {
            Does::Send => {
                let frame = rule.frame.as_deref().unwrap_or_default();
                let changed = if frame == verdict.frame {
                    "unchanged"
                } else {
                    frame
                };
                format!("    sends it to {target}: {changed}")
            }
            Does::Drop => "    drops it; what comes later does not see it".into(),
            Does::Pass => "    lets it pass".into(),
            Does::Watch => "    records it".into(),
            Does::HopLimit => "    deletes it: hop limit reached".into(),
            Does::Origin => format!("    skips it: it came from {target}"),
            Does::TooLong => "    deletes it: the modified length does not fit".into(),
            Does::Waiting => "    drops it: its target is not there".into(),
            Does::Mtu => format!("    drops it: the MTU of {target} is too small"),
        });
        for note in &rule.notes {
            line(format!("    {note}"));
        }
    }
    match verdict.reason.as_deref() {
        Some("unmatched") => line("  no rule matches".into()),
        Some("denied") => line("  no rule names it, and the policy is deny".into()),
        Some("malformed") => line("  no CAN bus carries such an identifier".into()),
        _ => {}
    }
    line(format!(
        "  local sockets of {} {} it",
        verdict.interface,
        if verdict.delivered {
            "get"
        } else {
            "do not get"
        }
    ));
    text
}
