//! The subcommands.

use std::io::Read as _;
use std::time::Duration;

use aya_log::EbpfLogger;
use clap::CommandFactory as _;

use super::args::{Cli, Command, InterfaceCommand, RuleCommand, SettingsCommand};
use super::daemon::Daemon;
use super::{
    complete, containers, dump, export, import, output, peers, probe, top, topology, tunnel,
    verdict, watch,
};
use crate::api::client::Door;
use crate::api::methods::{
    InterfaceSet, RuleAdd, RuleDelete, RuleFlush, RuleText, SettingsSet, SettingsShow, Sync,
};
use crate::error::{Error, Result};
use crate::file::{Document, Interface};
use crate::gateway::{Gateway, InterfaceChange};
use crate::reset::reset;
use crate::state::Settings;

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Rule(command) => rule(*command),
        Command::Interface(InterfaceCommand::List { json }) => {
            let interfaces = output::report()?.interfaces;
            if json {
                output::json(&interfaces)
            } else {
                output::interfaces(&interfaces)
            }
        }
        Command::Interface(InterfaceCommand::Set { interface, what }) => {
            let change = what.change();
            output::change(InterfaceSet { interface, change })
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
        Command::Watch {
            interface,
            dbc,
            json,
            once,
        } => watch::run(&interface, dbc.as_deref(), json, once),
        Command::Dump {
            filter,
            bus,
            write,
            dbc,
            json,
            count,
            buffer,
        } => dump::dump(dump::Dump {
            filter,
            bus,
            write: write.as_deref(),
            dbc: dbc.as_deref(),
            json,
            count,
            buffer,
        }),
        Command::Trace {
            filter,
            json,
            count,
        } => dump::trace(filter, json, count),
        Command::Top {
            json,
            once,
            interval,
        } => top::run(&top::Options {
            interval: Duration::from_secs(interval),
            json,
            once,
        }),
        Command::Probe { json } => probe::run(json),
        Command::Sync => output::change(Sync {}),
        Command::Log => log(),
        Command::Export { format, output } => export::run(format, output.as_deref()),
        Command::Import { dry_run, json } => import::run(dry_run, json),
        Command::Up { file } => topology::up(&file),
        Command::Down { topology } => topology::down(&topology),
        Command::Diff { file } => topology::diff(&file),
        Command::Graph { file, format } => topology::graph(&file, format),
        Command::Status { json } => topology::status(json),
        Command::Tunnel(command) => tunnel::run(command),
        Command::Peers { json } => peers::run(json),
        Command::Networks { json } => containers::networks(json),
        Command::Doctor { fix, json } => containers::doctor(fix, json),
        Command::Exec { ecu, command } => topology::exec(&ecu, &command),
        Command::Shell { ecu } => topology::shell(&ecu),
        Command::Reset => reset(&mut |step| eprintln!("{step}")),
        Command::Completions { shell, daemon } => {
            let mut command = if daemon {
                Daemon::command()
            } else {
                Cli::command()
            };
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut std::io::stdout());
            Ok(())
        }
        Command::Man { folder } => {
            // Section 1 is for everybody's commands, 8 for those of administrators.
            let daemon = clap_mangen::Man::new(Daemon::command()).section("8");
            clap_mangen::generate_to(Cli::command(), &folder)
                .and_then(|()| daemon.generate_to(&folder).map(drop))
                .map_err(|e| Error::io(format!("write man pages into {}", folder.display()), e))
        }
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
            options,
            exclusive,
            engine,
        } => {
            let rule = complete(&rule, Some(&options))?;
            let name = rule.source.clone();
            let change = InterfaceChange {
                exclusive: exclusive.then_some(true),
                engine,
                policy: None,
            };
            output::warn_of_can_gw(&name);
            let mut document = Document::from(vec![rule]);
            if !change.is_empty() {
                document.interfaces.push(Interface { name, change });
            }
            output::change(RuleAdd { document })
        }
        RuleCommand::Delete { rule, options } => {
            let rule = RuleText(complete(&rule, Some(&options))?);
            output::change(RuleDelete { rule })
        }
        RuleCommand::Test {
            source,
            frame,
            json,
        } => verdict::run(&source, &frame, json),
        RuleCommand::Load { file } => {
            let document = Document::parse(&file, &read(&file)?)?;
            output::change(RuleAdd { document })
        }
        RuleCommand::Flush => output::change(RuleFlush {}),
    }
}

/// The text of a file, or of standard input.
pub(super) fn read(file: &str) -> Result<String> {
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut f| f.read_to_string(&mut text))
    };
    read.map_err(|e| Error::io(format!("read {file}"), e))?;
    Ok(text)
}

fn settings(command: SettingsCommand) -> Result<()> {
    if let SettingsCommand::Show { json } = command {
        let settings = Door::open()?.call(SettingsShow {})?;
        return if json {
            output::json(&settings)
        } else {
            let log = if settings.log { "on" } else { "off" };
            output::print(|out| writeln!(out, "max-hops {}\nlog {log}", settings.max_hops))
        };
    }
    let old = Door::open()?.call(SettingsShow {})?;
    let settings = match command {
        SettingsCommand::MaxHops { hops } => Settings {
            max_hops: hops,
            ..old
        },
        SettingsCommand::Log { value } => Settings {
            log: value.into(),
            ..old
        },
        SettingsCommand::Reset | SettingsCommand::Show { .. } => Settings::default(),
    };
    output::change(SettingsSet { settings })
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
