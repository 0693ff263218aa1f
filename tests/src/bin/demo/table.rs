//! What became of the frames, by rule, and whether the counters tell the truth.

use std::collections::BTreeMap;

use cangw_tests::tool::Listed;
use serde_json::Value;

use crate::RULES;
use crate::network::{Counts, Network};

/// A rule's options, as far as the demo uses them.
struct Rule {
    source: &'static str,
    target: &'static str,
    id: u32,
    mask: u32,
}

impl Rule {
    fn parse(text: &'static str) -> Self {
        let option = |name: &str| {
            let mut words = text.split(' ').skip_while(|word| *word != name);
            words.nth(1)
        };
        let hex = |text: &str| u32::from_str_radix(text, 16).expect("the demo's filters are right");
        let filter = option("-f").unwrap_or("0:0").split_once(':');
        let (id, mask) = filter.expect("the demo's filters are not inverted");
        Self {
            source: option("-s").expect("a rule has a source"),
            target: option("-d").expect("a rule has a target"),
            id: hex(id),
            mask: hex(mask),
        }
    }

    fn count(&self, frames: &Counts) -> u64 {
        frames
            .iter()
            .filter(|(id, _)| *id & self.mask == self.id & self.mask)
            .map(|(_, n)| n)
            .sum()
    }
}

/// Prints the table and the totals; whether what arrived is what the counters say.
pub fn print(network: &Network, listed: &[Listed], stats: &Value) -> bool {
    println!(
        "\n{:36}{:>9}{:>11}{:>9}{:>9}{:>9}",
        "rule", "matched", "forwarded", "arrived", "dropped", "deleted"
    );
    let mut sound = listed.len() == RULES.len();
    let mut totals = [0; 5];
    let mut echoed = Counts::new();
    // How many of the frames sent on an interface no rule takes.
    let mut unmatched: BTreeMap<&str, Counts> = BTreeMap::new();
    // `cangw -L` has the newest rule first.
    for (text, listed) in RULES.into_iter().zip(listed.iter().rev()) {
        let rule = Rule::parse(text);
        let mut sent = network.sent_by(rule.source);
        let rest = unmatched.entry(rule.source).or_insert_with(|| sent.clone());
        rest.retain(|id, _| *id & rule.mask != rule.id & rule.mask);
        if rule.source == "app" {
            // What another rule echoes to an interface is seen there by its rules, and has no hop left.
            for (id, n) in &echoed {
                *sent.entry(*id).or_default() += n;
            }
        }
        let from: Counts = network
            .received_by(rule.target)
            .into_iter()
            .filter(|(id, _)| network.sent_by(rule.source).contains_key(id))
            .collect();
        if text.contains(" -e") {
            echoed.extend(from.iter().map(|(id, n)| (*id, *n)));
        }
        let row = [
            rule.count(&sent),
            listed.handled,
            rule.count(&from),
            listed.dropped,
            listed.deleted,
        ];
        let right = listed.rule == text && row[0] == row[1] + row[3] + row[4] && row[1] == row[2];
        sound &= right;
        line(text, row, right);
        for (total, n) in totals.iter_mut().zip(row) {
            *total += n;
        }
    }
    line("total", totals, true);
    let unmatched: u64 = unmatched.values().flat_map(Counts::values).sum();
    let counted: u64 = stats["interfaces"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|interface| interface["reasons"]["unmatched"].as_u64())
        .sum();
    println!(
        "\n{} frames sent; {unmatched} of them were for no rule ({counted} counted).",
        network.sent()
    );
    println!(
        "dropped: the trailer is not plugged in. deleted: echoes to app, which have no hop left."
    );
    sound && unmatched == counted
}

fn line(name: &str, row: [u64; 5], right: bool) {
    let [matched, forwarded, arrived, dropped, deleted] = row;
    let mark = if right { "" } else { "  <-- wrong" };
    println!("{name:36}{matched:9}{forwarded:11}{arrived:9}{dropped:9}{deleted:9}{mark}");
}
