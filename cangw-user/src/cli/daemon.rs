//! The options of `cangwd`, and where it logs.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::daemon::{self, Address, Options, Sources};

/// Where topologies are when no file is named.
const FOLDER: &str = "/etc/cangw";
/// Where dockerd looks for drivers; the name of the file is the driver's.
const DOCKER: &str = "/run/docker/plugins/cangw.sock";

/// Keeps topologies and rules true while CAN interfaces come and go.
///
/// Makes what the files describe, and makes it again when an interface vanishes and comes back: a USB adapter, a container, a controller
/// that was set up anew. Frames do not need it: rules and topologies live in the kernel and stay when it ends, in whichever way; when it starts
/// again, it goes on with what is there. SIGHUP reads the files again, SIGTERM ends it.
#[derive(Parser, Debug)]
#[command(name = "cangwd", version)]
pub struct Daemon {
    /// Topology files; without any, all *.toml of /etc/cangw
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// When told to end, take all topologies and rules down
    #[arg(long)]
    teardown: bool,
    /// Make a control socket here, unless systemd passes one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Be Docker's network driver `cangw` at this socket, unless systemd passes one
    #[arg(
        long,
        value_name = "PATH",
        num_args = 0..=1,
        default_missing_value = DOCKER
    )]
    docker: Option<PathBuf>,
    /// Serve metrics for Prometheus by HTTP, at /metrics of an address of this machine, such as 127.0.0.1:9465, or of a Unix socket,
    /// such as /run/cangw/metrics.sock, which everybody may read
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<Address>,
    /// The least that is logged: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LevelFilter,
}

/// Runs `cangwd`.
#[must_use]
pub fn main() -> ExitCode {
    let daemon = Daemon::parse();
    log_from(daemon.log);
    let options = Options {
        sources: if daemon.files.is_empty() {
            Sources::Folder(FOLDER.into())
        } else {
            Sources::Files(daemon.files)
        },
        teardown: daemon.teardown,
        socket: daemon.socket,
        docker: daemon.docker,
        metrics: daemon.metrics,
    };
    match daemon::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            failed(&format_args!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn failed(error: &dyn Display) {
    tracing::error!("{error}");
}

/// To the journal if systemd connected this process with it, else to standard error.
fn log_from(level: LevelFilter) {
    let journal = std::env::var_os("JOURNAL_STREAM")
        .and_then(|_| tracing_journald::layer().ok())
        .map(|layer| layer.with_filter(level));
    let terminal = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .with_filter(level)
    });
    tracing_subscriber::registry()
        .with(journal)
        .with(terminal)
        .init();
}
