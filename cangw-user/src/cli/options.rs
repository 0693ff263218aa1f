//! The options of a rule that can-gw does not have.

use cangw_common::frame::FrameType;
use cangw_common::rule::XlFilter;

use super::BadRule;
use super::args::OptionArgs;
use crate::dbc::Dbc;
use crate::ids::Ids;
use crate::limits::Limits;
use crate::modify::Modification;
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
        Some(path) => {
            let messages = args.message.iter().flat_map(|names| names.split(','));
            let sets = args.set.iter().map(String::as_str);
            Dbc::read(path)?.resolve(kind, messages, sets, &mut ids)?
        }
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
