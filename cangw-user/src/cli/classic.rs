//! `cangw -A`, `-D`, `-F`, `-L`: what can-utils' cangw does, with its messages and exit codes.

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _};

use super::args::{Classic, Cli};
use super::{BadRule, code, finish, output, rule};
use crate::error::Error;
use crate::gateway::Gateway;

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
    if let Some(option) = unsupported(args) {
        eprintln!(
            "cangw: {option}: this version forwards frames unchanged; modifications and checksums are not supported yet"
        );
        return ExitCode::FAILURE;
    }
    match verb {
        Verb::List => finish(output::classic_list()),
        Verb::Flush => done(
            Gateway::look().and_then(|found| found.map_or(Ok(()), |mut gateway| gateway.flush())),
        ),
        Verb::Add | Verb::Delete => match rule(&args.rule) {
            Ok(rule) if verb == Verb::Add => done(Gateway::open().and_then(|mut g| g.add(&[rule]))),
            Ok(rule) => done(Gateway::open().and_then(|mut g| g.delete(&rule))),
            Err(BadRule::Missing(option)) => {
                eprintln!("cangw: {option} is missing\n");
                eprint!("{}", Cli::command().render_help());
                ExitCode::FAILURE
            }
            Err(BadRule::Parse(e)) => {
                println!("{}", e.classic_message());
                eprintln!("cangw: {e}");
                ExitCode::FAILURE
            }
        },
    }
}

/// The option that belongs to modifications.
fn unsupported(args: &Classic) -> Option<&'static str> {
    [
        (!args.modify.is_empty(), "-m"),
        (!args.modify_fd.is_empty(), "-M"),
        (args.xor.is_some(), "-x"),
        (args.crc8.is_some(), "-c"),
        (args.profile.is_some(), "-p"),
    ]
    .into_iter()
    .find_map(|(given, option)| given.then_some(option))
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
    if let Error::Parse(e) = &error {
        println!("{}", e.classic_message());
    }
    eprintln!("cangw: {error}");
    ExitCode::from(code(&error))
}
