//! The lines of a script: options of `cangw -A`, and the settings that go with rules.

use std::fmt::Write as _;

use clap::Parser as _;

use super::{Document, Interface, check_name, check_names, in_line};
use crate::cli::args::{Cli, Command, InterfaceCommand, RuleArgs, RuleCommand, SettingsCommand};
use crate::cli::complete;
use crate::error::{Error, Result};
use crate::options::Action;
use crate::rule::Rule;

const HEAD: &str = "#!/bin/sh
# From `cangw export`. Run it, or `cangw rule load` it, which adds all rules in one step or none.
set -e
";

pub(super) fn write(document: &Document) -> String {
    let mut text = HEAD.to_owned();
    let mut line = |words: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "cangw {words}");
    };
    let on = |value| if value { "on" } else { "off" };
    if let Some(hops) = document.max_hops {
        line(format_args!("settings max-hops {hops}"));
    }
    if let Some(log) = document.log {
        line(format_args!("settings log {}", on(log)));
    }
    for Interface { name, change } in &document.interfaces {
        let mut set = |what: &str, value: Option<String>| {
            if let Some(value) = value {
                line(format_args!("interface set {} {what} {value}", quote(name)));
            }
        };
        // The engine may need the interface to be exclusive.
        set("exclusive", change.exclusive.map(|e| on(e).to_owned()));
        set("engine", change.engine.map(|e| e.to_string()));
        set("policy", change.policy.map(|p| p.to_string()));
    }
    for rule in &document.rules {
        let mut rule = rule.clone();
        rule.source = quote(&rule.source);
        if let Action::Forward { target } = &mut rule.action {
            *target = quote(target);
        }
        let verb = if rule.is_classic() { "-A" } else { "rule add" };
        line(format_args!("{verb} {rule}"));
    }
    text
}

/// A name as one word of a shell. Names of interfaces may contain everything but white space, `/` and `:`.
fn quote(name: &str) -> String {
    // No name contains a zero byte.
    shlex::try_quote(name).map_or_else(|_| String::new(), Into::into)
}

pub(super) fn parse(file: &str, text: &str) -> Result<Document> {
    let mut document = Document::default();
    for (number, line) in text.lines().enumerate() {
        take(&mut document, line).map_err(|error| in_line(file, number + 1, error))?;
    }
    Ok(document)
}

/// Reads a line, in which what follows `#` is a comment; `cangw -L` writes the counters there.
fn take(document: &mut Document, line: &str) -> Result<()> {
    let words = shlex::split(line).ok_or_else(|| bad("a quote is not closed".into()))?;
    // The program is called by whatever name, perhaps through sudo.
    let is_command = |word: &String| {
        word.starts_with('-') || ["settings", "interface", "rule"].contains(&word.as_str())
    };
    let Some(start) = words.iter().position(is_command) else {
        return match words.first() {
            None => Ok(()),
            Some(word) if word.starts_with('[') => Err(bad(
                "this looks like TOML; such a file begins with `version = 1`".into(),
            )),
            Some(_) => Err(bad(format!("`{}` is no rule", line.trim()))),
        };
    };
    let (program, arguments) = words.split_at(start);
    if program.first().is_some_and(|word| word == "set") {
        // An option of the shell.
        return Ok(());
    }
    if arguments[0].starts_with('-') {
        document.rules.push(rule(arguments)?);
        return Ok(());
    }
    let arguments = std::iter::once("cangw").chain(arguments.iter().map(String::as_str));
    match Cli::try_parse_from(arguments).map_err(unknown)?.command {
        Some(Command::Settings(SettingsCommand::MaxHops { hops })) => {
            document.max_hops = Some(hops);
        }
        Some(Command::Settings(SettingsCommand::Log { value })) => {
            document.log = Some(value.into());
        }
        Some(Command::Interface(InterfaceCommand::Set { interface, what })) => {
            check_name(&interface).map_err(bad)?;
            document.interface(&interface).add(what.change());
        }
        Some(Command::Rule(command)) => {
            match *command {
                RuleCommand::Add {
                    rule,
                    options,
                    exclusive: false,
                    engine: None,
                } => {
                    let rule = complete(&rule, Some(&options))?;
                    check_names(&rule).map_err(bad)?;
                    document.rules.push(rule);
                }
                _ => return Err(bad(
                    "of `cangw rule`, only `add` without --exclusive and --engine is for a file"
                        .into(),
                )),
            }
        }
        _ => return Err(bad("this is not for a file".into())),
    }
    Ok(())
}

/// A rule as on the command line, with or without `-A` before it.
fn rule(words: &[String]) -> Result<Rule> {
    #[derive(clap::Parser)]
    #[command(
        no_binary_name = true,
        args_override_self = true,
        disable_help_flag = true
    )]
    struct Line {
        /// Accepted, because `cangw -L` prints it.
        #[arg(short = 'A')]
        _add: bool,
        #[command(flatten)]
        rule: RuleArgs,
    }
    let rule = complete(&Line::try_parse_from(words).map_err(unknown)?.rule, None)?;
    check_names(&rule).map_err(bad)?;
    Ok(rule)
}

fn unknown(error: clap::Error) -> Error {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    bad(line.strip_prefix("error: ").unwrap_or(line).to_owned())
}

fn bad(reason: String) -> Error {
    Error::Io {
        what: "the line cannot be understood".into(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, reason),
    }
}
