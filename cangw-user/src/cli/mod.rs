//! The command line.

pub(crate) mod args;
mod classic;
mod commands;
mod containers;
pub mod daemon;
mod dump;
mod export;
mod import;
mod options;
mod output;
mod peers;
mod probe;
mod top;
mod topology;
mod tunnel;
mod verdict;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser as _};

use crate::dbc::NameError;
use crate::error::{Error, Result};
use crate::modify::{Changes, Modification, Operation, parse_uid};
use crate::options::{Action, Options};
use crate::rule::{ParseError, Rule, parse_filter, parse_limit};
use args::{Cli, OptionArgs, RuleArgs};
use cangw_common::frame::FrameType;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    restore_sigpipe();
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(e) => {
            // can-utils' cangw exits with 1 on a bad option.
            let code = u8::from(e.use_stderr());
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::FAILURE;
        }
    };
    match cli.command {
        Some(command) => finish(commands::run(command)),
        None => classic::run(&matches, &cli.classic),
    }
}

/// The rule of a command line such as `cangw -A …`; `None` when it cannot be understood. For tests: [`main`] does the same first.
#[must_use]
pub fn understand(line: impl IntoIterator<Item = String>) -> Option<Rule> {
    let cli = Cli::try_parse_from(line).ok()?;
    rule(&cli.classic.rule, None).ok()
}

fn finish(result: Result<()>) -> ExitCode {
    let flushed = std::io::stdout().flush();
    match result {
        Ok(()) if flushed.is_ok() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("cangw: {e}");
            ExitCode::from(code(&e))
        }
    }
}

/// The exit code of an error: that of can-utils' cangw where it has the same error.
fn code(error: &Error) -> u8 {
    error.errno().map_or(1, |errno| (256 - errno) as u8)
}

/// Rust ignores SIGPIPE, so that `cangw -L | head` would end with an error message.
fn restore_sigpipe() {
    // SAFETY: the default action is not a function of this process.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Why options do not make a rule.
pub(crate) enum BadRule {
    /// An option is missing.
    Missing(&'static str),
    /// An option's value cannot be understood.
    Parse(ParseError),
    /// A name cannot be found in a DBC file.
    Dbc(crate::dbc::DbcError),
}

impl From<ParseError> for BadRule {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
}

impl From<crate::dbc::DbcError> for BadRule {
    fn from(error: crate::dbc::DbcError) -> Self {
        Self::Dbc(error)
    }
}

impl From<NameError> for BadRule {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Dbc(error) => error.into(),
            NameError::Rule(error) => error.into(),
        }
    }
}

/// Makes a rule of its options; with `beyond`, also of those that can-gw does not have.
pub(crate) fn rule(
    args: &RuleArgs,
    beyond: Option<&OptionArgs>,
) -> std::result::Result<Rule, BadRule> {
    let limit = args.limit.as_deref().map_or(Ok(0), parse_limit)?;
    let filter = args.filter.as_deref().map(parse_filter).transpose()?;
    let source = args
        .source
        .clone()
        .ok_or(BadRule::Missing("-s <source interface>"))?;
    let kind = match (args.fd, args.xl) {
        (false, false) => FrameType::Classic,
        (true, _) => FrameType::Fd,
        (false, true) => FrameType::Xl,
    };
    let (action, options, set) = match beyond {
        Some(beyond) => options::parse(kind, args.target.as_deref(), beyond)?,
        None => (forward(args)?, Options::default(), Vec::new()),
    };
    let rule = Rule {
        source,
        action,
        kind,
        echo: args.echo,
        timestamp: args.timestamp,
        iif_tx_ok: args.iif_tx_ok,
        limit,
        // 0:0 says nothing, and can-gw does not keep it.
        filter: filter.filter(|f| !f.is_empty()),
        changes: changes(kind, args, &set)?,
        options,
    };
    rule.check()?;
    Ok(rule)
}

/// The action of a rule that can-gw could have.
fn forward(args: &RuleArgs) -> std::result::Result<Action, BadRule> {
    let target = args.target.clone();
    target
        .map(|target| Action::Forward { target })
        .ok_or(BadRule::Missing("-d <target interface>"))
}

/// Makes a rule of its options, which must all be there.
pub(crate) fn complete(args: &RuleArgs, beyond: Option<&OptionArgs>) -> Result<Rule> {
    rule(args, beyond).map_err(|bad| match bad {
        BadRule::Parse(e) => Error::Parse(e),
        BadRule::Dbc(e) => Error::Dbc(e),
        BadRule::Missing(option) => Error::Io {
            what: "the rule is incomplete".into(),
            source: std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("{option} is missing"),
            ),
        },
    })
}

/// What the options change in frames; `None` when there is no modification. A uid alone is lost, as in can-gw.
fn changes(
    kind: FrameType,
    args: &RuleArgs,
    set: &[Modification],
) -> std::result::Result<Option<Changes>, ParseError> {
    let parse = |kind, texts: &[String]| {
        // can-utils' cangw does not look at a fifth.
        let texts = texts.iter().take(Operation::ALL.len());
        texts
            .map(|text| Modification::parse(kind, text))
            .collect::<std::result::Result<Vec<_>, _>>()
    };
    let classic = parse(FrameType::Classic, &args.modify)?;
    let fd = parse(FrameType::Fd, &args.modify_fd)?;
    let xor = args.xor.as_deref().map(str::parse).transpose()?;
    let crc8 = args.crc8.as_deref().map(str::parse).transpose()?;
    let profile = args.profile.as_deref().map(str::parse).transpose()?;
    let uid = args.uid.as_deref().map_or(Ok(0), parse_uid)?;
    let mut modifications = match kind {
        FrameType::Classic if !fd.is_empty() => return Err(ParseError::FdOnClassic),
        FrameType::Fd if !classic.is_empty() => return Err(ParseError::ClassicOnFd),
        FrameType::Xl if !classic.is_empty() || !fd.is_empty() => {
            return Err(ParseError::XlModification);
        }
        FrameType::Fd => fd,
        FrameType::Classic | FrameType::Xl => classic,
    };
    if let Some(used) = set
        .iter()
        .find(|s| modifications.iter().any(|m| m.operation == s.operation))
    {
        return Err(ParseError::Misplaced {
            option: "--set",
            reason: match used.operation {
                Operation::And => "uses AND, so that -m or -M cannot",
                _ => "uses OR, so that -m or -M cannot",
            },
        });
    }
    modifications.extend(set);
    if modifications.is_empty() {
        return if xor.is_some() || crc8.is_some() {
            Err(ParseError::ChecksumAlone)
        } else {
            Ok(None)
        };
    }
    Changes::new(kind, modifications, uid, crc8, profile, xor).map(Some)
}
