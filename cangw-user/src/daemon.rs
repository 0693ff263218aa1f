//! `cangwd`: keeps topologies and rules true while interfaces come and go.
//!
//! Frames do not need this process: what forwards them lives in the kernel, and stays when it ends in whichever way. It looks at what should be and
//! at what is, when the kernel says that something changed, and takes the steps between both, as `cangw up` and `cangw sync` do.

mod access;
mod control;
mod events;
mod failures;
mod keeper;
mod metrics;
mod orders;
mod patience;
mod runners;
mod scrapes;
mod session;
mod shared;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use self::control::{Control, Socket};
pub use self::keeper::Sources;
use self::keeper::{Keeper, Outcome};
use self::orders::{Order, What};
use self::patience::Patience;
pub use self::scrapes::Address;
use self::scrapes::Scrapes;
use self::shared::Shared;
use self::watch::Watches;
use crate::api::methods::Done;
use crate::containers::fabric::Kernel;
use crate::containers::networks::Networks;
use crate::containers::{self, server};

/// Changes come in groups: as many links as an adapter has, or all steps of `ip`. After the first, this long is waited for the others.
const SETTLE: Duration = Duration::from_millis(20);

/// Passes that may take steps without a pause, and the pause.
const PASSES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);

/// What `cangwd` is told.
pub struct Options {
    /// Where the topologies are.
    pub sources: Sources,
    /// Whether everything goes when the daemon is told to end.
    pub teardown: bool,
    /// The control socket to be made, if systemd gives none.
    pub socket: Option<PathBuf>,
    /// The socket for dockerd to be made, if systemd gives none.
    pub docker: Option<PathBuf>,
    /// Where metrics can be read.
    pub metrics: Option<Address>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When a topology file is wrong or the control socket cannot be made at the start; what the kernel refuses is logged and tried again.
pub fn run(options: &Options) -> Result<()> {
    crate::capability::require("keeping topologies and rules")?;
    let shared = Arc::new(Shared::default());
    let keeper = Keeper::load(options.sources.clone(), Arc::clone(&shared))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(serve(options, keeper, shared))
}

async fn serve(options: &Options, mut keeper: Keeper, shared: Arc<Shared>) -> Result<()> {
    // Signals that come from now on are not lost.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let changed = Arc::new(Notify::new());
    let mut watches = Watches::new(Arc::clone(&changed));
    let (orders, mut asked) = mpsc::channel::<Order>(1);
    let mut given = control::given()?;
    let mut listener = |socket, path: Option<&Path>| match (given.remove(&socket), path) {
        (None, Some(path)) => control::make(path, socket).map(Some),
        (given, _) => Ok(given),
    };
    if let Some(listener) = listener(Socket::Control, options.socket.as_deref())? {
        let control = Arc::new(Control::new(Arc::clone(&shared), orders.clone()));
        tokio::spawn(control::serve(listener, control));
    }
    if let Some(listener) = listener(Socket::Docker, options.docker.as_deref())? {
        let networks = Networks::new(&containers::folder(), Kernel);
        tokio::spawn(server::serve(listener, Arc::new(networks)));
    }
    if let Some(address) = &options.metrics {
        tokio::spawn(Scrapes::listen(address)?.serve(Arc::clone(&shared)));
    }
    if let Some(period) = sd_notify::watchdog_enabled() {
        tokio::spawn(feed_watchdog(period, Arc::clone(&shared)));
    }
    let mut patience = Patience::new(PASSES, PAUSE, Instant::now());
    let mut ready = false;
    loop {
        // Those that have lost their names are to go before others are made.
        watches.follow(keeper.namespaces());
        shared.set_busy(Some(Instant::now()));
        let (returned, outcome) = spawn_blocking(move || {
            let outcome = keeper.keep();
            (keeper, outcome)
        })
        .await
        .context("a pass ended with a panic")?;
        keeper = returned;
        shared.set_busy(None);
        watches.follow(keeper.namespaces());
        let quarrel = outcome.steps != 0 && !patience.spend(Instant::now());
        let again = outcome.again;
        tell(&shared, outcome);
        if !ready {
            ready = true;
            let _ = sd_notify::notify(&[NotifyState::Ready]);
        }
        let rest = async {
            match again {
                _ if quarrel => tokio::time::sleep(PAUSE).await,
                Some(time) => tokio::time::sleep_until(time.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified(), if !quarrel => tokio::time::sleep(SETTLE).await,
            () = rest => {}
            _ = hangup.recv() => drop(reload(&mut keeper)),
            Some(order) = asked.recv() => {
                // It can hang as a pass can.
                shared.set_busy(Some(Instant::now()));
                keeper = obey(keeper, order).await?;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    if options.teardown {
        info!("taking everything down");
        spawn_blocking(move || keeper.teardown())
            .await
            .context("taking down ended with a panic")??;
    } else {
        info!("ends; topologies and rules stay in the kernel");
    }
    Ok(())
}

/// Does what a client wants.
async fn obey(mut keeper: Keeper, Order { what, answer }: Order) -> Result<Keeper> {
    let (keeper, result) = spawn_blocking(move || {
        let result = match what {
            What::Reload => reload(&mut keeper).map(|()| Done::default()),
            What::Up(up) => keeper.up(&up),
            What::Down(down) => keeper.down(&down),
            What::AddTunnel(add) => keeper.add_tunnel(&add),
            What::RemoveTunnel(remove) => keeper.remove_tunnel(&remove),
        };
        (keeper, result)
    })
    .await
    .context("what a client wanted ended with a panic")?;
    // The client may be gone.
    let _ = answer.send(result);
    Ok(keeper)
}

/// Reads the files again. If they are wrong, everything stays as it is.
fn reload(keeper: &mut Keeper) -> crate::Result<()> {
    let reloading = NotifyState::monotonic_usec_now().map(|now| [NotifyState::Reloading, now]);
    if let Ok(states) = reloading {
        let _ = sd_notify::notify(&states);
    }
    let result = keeper.reload();
    match &result {
        Ok(()) => info!("read the topologies again"),
        Err(e) => error!("the topologies stay as they were: {e}"),
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    result
}

/// Logs what is new, and tells the service manager.
fn tell(shared: &Shared, outcome: Outcome) {
    let before = shared.outcome();
    for error in &outcome.errors {
        if !before.errors.contains(error) {
            error!("{error}");
        }
    }
    if !before.errors.is_empty() && outcome.errors.is_empty() {
        info!("what failed before is done");
    }
    if outcome.waiting > before.waiting {
        warn!(
            "{} of {} rules wait for interfaces",
            outcome.waiting, outcome.rules
        );
    }
    // A line is all that there is room for.
    let status = outcome.to_string().replace('\n', " ");
    if outcome.to_string() != before.to_string() {
        let _ = sd_notify::notify(&[NotifyState::Status(&status)]);
    }
    shared.set_outcome(outcome);
}

/// Tells the service manager that this process is alive, unless a pass takes longer than the manager's patience.
async fn feed_watchdog(patience: Duration, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(patience / 2);
    loop {
        ticks.tick().await;
        if !shared.hangs(patience) {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }
}
