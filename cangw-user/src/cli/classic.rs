//! `cangw -A`, `-D`, `-F`, `-L`: what can-utils' cangw does, with its messages and exit codes.

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _};

use super::args::{Classic, Cli};
use super::{BadRule, code, finish, output, rule};
use crate::api::methods::{RuleAdd, RuleDelete, RuleFlush, RuleText};
use crate::rule::ParseError;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Delete,
    Flush,
    List,
}

/// The verb that was given first.
fn verb(matches: &ArgMatches) -> Option<Verb> {
    [
        ("add", Verb::Add),
        ("delete", Verb::Delete),
        ("flush", Verb::Flush),
        ("list", Verb::List),
    ]
    .into_iter()
    .filter(|(name, _)| matches.get_flag(name))
    .filter_map(|(name, verb)| Some((matches.indices_of(name)?.min()?, verb)))
    .min_by_key(|(index, _)| *index)
    .map(|(_, verb)| verb)
}

pub(super) fn run(matches: &ArgMatches, args: &Classic) -> ExitCode {
    if args.usage {
        let _ = Cli::command().print_help();
        return ExitCode::SUCCESS;
    }
    let Some(verb) = verb(matches) else {
        eprint!("{}", Cli::command().render_help());
        return ExitCode::FAILURE;
    };
    match verb {
        Verb::List => finish(output::classic_list()),
        Verb::Flush => done(output::change(RuleFlush {})),
        Verb::Add | Verb::Delete => match rule(&args.rule, None) {
            Ok(rule) if verb == Verb::Add => {
                output::warn_of_can_gw(&rule.source);
                let document = vec![rule].into();
                done(output::change(RuleAdd { document }))
            }
            Ok(rule) => {
                let rule = RuleText(rule);
                done(output::change(RuleDelete { rule }))
            }
            Err(BadRule::Missing(option)) => {
                eprintln!("cangw: {option} is missing\n");
                eprint!("{}", Cli::command().render_help());
                ExitCode::FAILURE
            }
            // can-utils' cangw leaves this one to the kernel.
            Err(BadRule::Parse(e @ ParseError::Index { .. })) => done(Err(e.into())),
            Err(BadRule::Dbc(e)) => done(Err(e.into())),
            Err(BadRule::Parse(e)) => {
                println!("{}", e.classic_message());
                eprintln!("cangw: {e}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Reports as can-utils' cangw does: the kernel's error first, then, which that one leaves to the user, the reason.
fn done(result: crate::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if let Some(errno) = error.errno() {
        let text = std::io::Error::from_raw_os_error(errno).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        eprintln!("netlink error {} ({text})", -errno);
    }
    eprintln!("cangw: {error}");
    ExitCode::from(code(&error))
}
