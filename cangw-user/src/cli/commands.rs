//! The subcommands.

use std::io::Read as _;

use aya_log::EbpfLogger;
use clap::{CommandFactory as _, Parser as _};

use super::args::{
    Cli, Command, InterfaceCommand, InterfaceSetting, RuleArgs, RuleCommand, SettingsCommand,
};
use super::{BadRule, output, probe};
use crate::error::{Error, Result};
use crate::gateway::{Gateway, change_interface};
use crate::rule::Rule;
use crate::state::{Settings, State};

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Rule(command) => rule(command),
        Command::Interface(InterfaceCommand::List { json }) => {
            let interfaces = output::report()?.interfaces;
            if json {
                output::json(&interfaces)
            } else {
                output::interfaces(&interfaces)
            }
        }
        Command::Interface(InterfaceCommand::Set { interface, what }) => {
            let (exclusive, engine) = match what {
                InterfaceSetting::Exclusive { value } => (Some(value.into()), None),
                InterfaceSetting::Engine { value } => (None, Some(value)),
            };
            Gateway::open()?.set_interface(&interface, exclusive, engine)
        }
        Command::Settings(command) => settings(command),
        Command::Stats { json } => {
            let report = output::report()?;
            if json {
                output::json(&report)
            } else {
                output::stats(&report)
            }
        }
        Command::Probe { json } => probe::run(json),
        Command::Sync => Gateway::look()?.map_or(Ok(()), |mut gateway| gateway.sync()),
        Command::Log => log(),
        Command::Man { folder } => clap_mangen::generate_to(Cli::command(), &folder)
            .map_err(|e| Error::io(format!("write man pages into {}", folder.display()), e)),
    }
}

fn rule(command: RuleCommand) -> Result<()> {
    match command {
        RuleCommand::List { json } => {
            let rules = output::report()?.rules;
            if json {
                output::json(&rules)
            } else {
                output::rules(&rules)
            }
        }
        RuleCommand::Add {
            rule,
            exclusive,
            engine,
        } => {
            let rule = complete(&rule)?;
            let name = rule.source.clone();
            let set = |state: &mut State| {
                if exclusive || engine.is_some() {
                    change_interface(state, &name, exclusive.then_some(true), engine);
                }
            };
            Gateway::open()?.add_with(&[rule], set, &mut |_| Ok(()))
        }
        RuleCommand::Delete { rule } => Gateway::open()?.delete(&complete(&rule)?),
        RuleCommand::Load { file } => {
            let rules = load(&file)?;
            Gateway::open()?.add(&rules)
        }
        RuleCommand::Flush => Gateway::look()?.map_or(Ok(()), |mut gateway| gateway.flush()),
    }
}

/// A rule of options that are all given.
fn complete(args: &RuleArgs) -> Result<Rule> {
    super::rule(args).map_err(|bad| match bad {
        BadRule::Parse(e) => Error::Parse(e),
        BadRule::Missing(option) => Error::Io {
            what: "the rule is incomplete".into(),
            source: std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("{option} is missing"),
            ),
        },
    })
}

/// The rules of a file, oldest first.
fn load(file: &str) -> Result<Vec<Rule>> {
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut f| f.read_to_string(&mut text))
    };
    read.map_err(|e| Error::io(format!("read {file}"), e))?;
    let mut rules = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // What follows # is a comment; `cangw -L` writes the counters there.
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        rules.push(parse_line(line).map_err(|error| Error::File {
            file: file.to_owned(),
            line: number + 1,
            error: Box::new(error),
        })?);
    }
    Ok(rules)
}

/// A rule as on the command line, with or without `cangw -A` before it.
fn parse_line(line: &str) -> Result<Rule> {
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
    let words = line.split_whitespace();
    let words = words.skip_while(|word| !word.starts_with('-'));
    let parsed = Line::try_parse_from(words).map_err(|e| Error::Io {
        what: "the rule cannot be understood".into(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, first_line(&e.to_string())),
    })?;
    complete(&parsed.rule)
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn settings(command: SettingsCommand) -> Result<()> {
    if let SettingsCommand::Show { json } = command {
        let settings = Gateway::look()?.map_or_else(Settings::default, |g| g.settings());
        return if json {
            output::json(&settings)
        } else {
            let log = if settings.log { "on" } else { "off" };
            output::print(|out| writeln!(out, "max-hops {}\nlog {log}", settings.max_hops))
        };
    }
    let mut gateway = Gateway::open()?;
    let old = gateway.settings();
    gateway.set(match command {
        SettingsCommand::MaxHops { hops } => Settings {
            max_hops: hops,
            ..old
        },
        SettingsCommand::Log { value } => Settings {
            log: value.into(),
            ..old
        },
        SettingsCommand::Reset | SettingsCommand::Show { .. } => Settings::default(),
    })
}

/// Prints what the programs log.
fn log() -> Result<()> {
    struct Print;
    impl log::Log for Print {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            println!("{}", record.args());
        }
        fn flush(&self) {}
    }
    let id = Gateway::look()?
        .and_then(|g| g.logging_program().transpose())
        .transpose()?;
    let Some(id) = id else {
        return Err(Error::Unsupported {
            what: "log, because the gateway does not log in this network namespace".into(),
            remedy: "turn it on with `cangw settings log on`, and add a rule".into(),
        });
    };
    let failed = |e: aya_log::Error| Error::bpf("read the log", &e);
    let logger = EbpfLogger::init_from_id_with_logger(id, Print).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("wait for the log", e))?;
    runtime.block_on(async {
        let io = |e| Error::io("wait for the log", e);
        // SAFETY: the logger owns its descriptor, which is the same until it is dropped, after the AsyncFd.
        let mut logger =
            unsafe { tokio::io::unix::AsyncFd::register(logger) }.map_err(|e| io(e.into()))?;
        loop {
            let mut ready = logger.readable_mut().await.map_err(io)?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    })
}
