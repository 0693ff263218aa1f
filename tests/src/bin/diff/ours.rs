//! Our gateway by its library. A process of cangw for each rule takes ten times as long.

use cangw::gateway::{Gateway, RuleReport};
use cangw::modify::{Changes, Modification};
use cangw::rule::{ParseError, parse_filter};
use cangw::state::{Settings, State};
use cangw_common::frame::FrameType;
use cangw_tests::diff::contestant::EINVAL;
use cangw_tests::diff::network::IDLE;
use cangw_tests::diff::rule::Rule;

/// Sets `max-hops`.
///
/// # Panics
/// When that fails.
pub fn set_max_hops(max_hops: u8) {
    let set = |mut gateway: Gateway| {
        gateway.set(Settings {
            max_hops,
            ..gateway.settings()
        })
    };
    Gateway::open().and_then(set).expect("max-hops can be set");
}

/// Deletes a rule; the exit status that our cangw would have.
pub fn delete(rule: &Rule) -> i32 {
    match ours(rule) {
        Ok(rule) => code(Gateway::open().and_then(|mut gateway| gateway.delete(&rule))),
        Err(code) => code,
    }
}

/// Adds rules; the exit status that our cangw would have.
pub fn add(rules: &[&Rule]) -> i32 {
    match rules
        .iter()
        .map(|rule| ours(rule))
        .collect::<Result<Vec<_>, _>>()
    {
        Ok(rules) => code(Gateway::open().and_then(|mut gateway| gateway.add(&rules))),
        Err(code) => code,
    }
}

/// Deletes all rules but the one that is to stay.
pub fn flush() -> i32 {
    let all_but_one = |state: &mut State| state.rules.retain(|entry| entry.rule.source == IDLE);
    code(
        Gateway::open().and_then(|mut gateway| gateway.add_with(&[], all_but_one, &mut |_| Ok(()))),
    )
}

/// The rules as `cangw -L` prints them.
pub fn list() -> String {
    let report = Gateway::look()
        .and_then(|found| found.map_or_else(|| Ok(Default::default()), |gateway| gateway.report()))
        .expect("our gateway lists its rules");
    let line = |r: &RuleReport| {
        format!(
            "cangw -A {} # {} handled {} dropped {} deleted\n",
            r.rule, r.handled, r.dropped, r.deleted
        )
    };
    report.rules.iter().map(line).collect()
}

/// The exit status that our cangw makes of a result.
fn code(result: cangw::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(e) => e.errno().map_or_else(
            || {
                eprintln!("ours: {e}");
                1
            },
            |errno| 256 - errno,
        ),
    }
}

/// A rule as our library has it, or the exit status that our cangw would have.
pub fn ours(rule: &Rule) -> Result<cangw::rule::Rule, i32> {
    rule_of_ours(rule).map_err(|e| match e {
        ParseError::Index { .. } => EINVAL,
        other => panic!(
            "our gateway does not understand {}: {other}",
            rule.options()
        ),
    })
}

fn rule_of_ours(rule: &Rule) -> Result<cangw::rule::Rule, ParseError> {
    let kind = if rule.fd {
        FrameType::Fd
    } else {
        FrameType::Classic
    };
    let kept = rule.kept();
    let changes = if kept.modifications.is_empty() {
        None
    } else {
        // The text of each option is what both understand.
        let given = rule.modifications.iter().take(4);
        let texts = given.map(|m| Modification::parse(kind, &m.text(rule.fd)));
        Some(Changes::new(
            kind,
            texts.collect::<Result<Vec<_>, _>>()?,
            rule.uid,
            rule.crc8_text().map(|text| text.parse()).transpose()?,
            rule.profile_text().map(|text| text.parse()).transpose()?,
            rule.xor.map(|span| span.text().parse()).transpose()?,
        )?)
    };
    let filter = kept.filter_text().map(|text| parse_filter(&text));
    Ok(cangw::rule::Rule {
        echo: rule.echo,
        timestamp: rule.timestamp,
        iif_tx_ok: rule.iif_tx_ok,
        limit: rule.limit,
        filter: filter.transpose()?,
        changes,
        ..cangw::rule::Rule::new(rule.source, rule.target, kind)
    })
}
