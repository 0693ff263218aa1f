//! The options of a rule that can-gw does not have.

use cangw_common::frame::FrameType;
use cangw_common::rule::XlFilter;

use super::BadRule;
use super::args::OptionArgs;
use crate::dbc::Dbc;
use crate::ids::{IdRange, Ids};
use crate::limits::Limits;
use crate::modify::{DATA, Modification, Operation};
use crate::options::{Action, Options, Stay, parse_acceptance, parse_byte};
use crate::rule::ParseError;

/// What the options say: the action, the options of the rule, and modifications that write signals.
pub(super) fn parse(
    kind: FrameType,
    target: Option<&str>,
    args: &OptionArgs,
) -> Result<(Action, Options, Vec<Modification>), BadRule> {
    let mut ids = Ids::parse(&args.id, &args.pgn, &args.sa, &args.da)?;
    let set = match &args.dbc {
        Some(path) => by_name(kind, &Dbc::read(path)?, args, &mut ids)?,
        None => Vec::new(),
    };
    let byte = |option, text: &Option<String>| {
        text.as_deref()
            .map(|text| parse_byte(option, text))
            .transpose()
    };
    let options = Options {
        priority: args.priority.unwrap_or(0),
        ids,
        xl: XlFilter {
            vcid: byte("--vcid", &args.vcid)?,
            sdt: byte("--sdt", &args.sdt)?,
            af: args.af.as_deref().map(parse_acceptance).transpose()?,
        },
        limits: limits(args)?,
        watch: args.watch,
    };
    Ok((action(target, args)?, options, set))
}

fn limits(args: &OptionArgs) -> Result<Limits, ParseError> {
    let share = |text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(str::parse).transpose()
    };
    Ok(Limits {
        rate: args.rate.as_deref().map(str::parse).transpose()?,
        burst: args.burst,
        per_id: args.per_id,
        drop: share(&args.drop)?,
        duplicate: share(&args.duplicate)?,
        corrupt: share(&args.corrupt)?,
        seed: args.seed.unwrap_or(0),
    })
}

fn action(target: Option<&str>, args: &OptionArgs) -> Result<Action, BadRule> {
    let drops = args.drop.as_deref() == Some("");
    let stay = match target {
        Some(_) if drops => {
            return Err(ParseError::Misplaced {
                option: "--drop",
                reason: "with a target (-d) needs a share, such as 1%; without -d it drops all frames of the rule",
            }
            .into());
        }
        Some(target) => {
            return Ok(Action::Forward {
                target: target.to_owned(),
            });
        }
        None if drops => Stay::Drop,
        None if args.pass => Stay::Pass,
        None if args.watch => Stay::Watch,
        None => {
            return Err(BadRule::Missing(
                "-d <target interface> (or --drop, --pass or --watch)",
            ));
        }
    };
    Ok(Action::Stay { action: stay })
}

/// Looks messages and signals up: their identifiers are added, and modifications write the signals.
fn by_name(
    kind: FrameType,
    dbc: &Dbc,
    args: &OptionArgs,
    ids: &mut Ids,
) -> Result<Vec<Modification>, BadRule> {
    for name in args.message.iter().flat_map(|names| names.split(',')) {
        ids.ranges
            .push(IdRange::single(dbc.message(name.trim())?.can_id));
    }
    let mut sets = args.set.iter().map(|text| dbc.parse_set(text));
    let Some(first) = sets.next() else {
        return Ok(Vec::new());
    };
    let mut set = first?;
    for next in sets {
        set.merge(&next?)?;
    }
    if kind == FrameType::Classic && set.len > 8 {
        return Err(ParseError::Misplaced {
            option: "--set",
            reason: "names a message of more than 8 bytes, which needs a rule for FD frames (-X)",
        }
        .into());
    }
    let own = IdRange::single(set.can_id);
    if ids.is_empty() {
        ids.ranges.push(own);
    } else if ids.ranges != [own] || !ids.pgns.is_empty() {
        return Err(ParseError::Misplaced {
            option: "--set",
            reason: "writes into one message, so that the rule can have no other identifiers",
        }
        .into());
    }
    let write = |operation, data| Modification {
        operation,
        elements: DATA,
        id: 0,
        len: 0,
        flags: 0,
        data,
    };
    // Classic frames have only the first 8 operands.
    let used = if kind == FrameType::Classic { 8 } else { 64 };
    let keep = std::array::from_fn(|i| if i < used { !set.mask[i] } else { 0 });
    let mut modifications = vec![write(Operation::And, keep)];
    if set.bits != [0; 64] {
        modifications.push(write(Operation::Or, set.bits));
    }
    Ok(modifications)
}
