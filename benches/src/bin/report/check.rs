//! Whether something has become slower.

use std::process::ExitCode;

use cangw_benches::{NO_GATEWAY, OfKernel, is_ours};

/// What measurements repeat to, and some room: beyond it a change is one.
const TOLERANCE: f64 = 0.03;

/// Compares what a frame costs beyond the sender; says what differs.
pub fn compare(known: &OfKernel, now: &OfKernel) -> ExitCode {
    let mut worse = 0;
    let mut compared = 0;
    for measured in &now.counted {
        if !is_ours(&measured.gateway) {
            continue;
        }
        let before = known.counted.iter().find(|m| m.name == measured.name);
        let (Some(before), Some(after)) =
            (before.and_then(|m| known.added(m)), now.added(measured))
        else {
            println!("{}: not in the results", measured.name);
            worse += 1;
            continue;
        };
        compared += 1;
        let change = after / before - 1.0;
        let verdict = if change > TOLERANCE {
            worse += 1;
            "slower"
        } else if change < -TOLERANCE {
            "faster, `cargo xtask bench` writes that down"
        } else {
            continue;
        };
        println!(
            "{}: {before:.0} instructions beyond `{NO_GATEWAY}` in the results, {after:.0} now ({:+.1} %): {verdict}",
            measured.name,
            change * 100.0
        );
    }
    println!("{compared} measurements compared, {worse} of them slower by more than 3 % or new");
    if worse == 0 && compared > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
