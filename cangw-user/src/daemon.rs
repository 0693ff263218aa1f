//! `cangwd`: keeps topologies and rules true while interfaces come and go.
//!
//! Frames do not need this process: what forwards them lives in the kernel, and stays when it ends in whichever way. It looks at what should be and
//! at what is, when the kernel says that something changed, and takes the steps between both, as `cangw up` and `cangw sync` do.

mod control;
mod failures;
mod keeper;
mod patience;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use self::control::{Control, Reload};
pub use self::keeper::Sources;
use self::keeper::{Keeper, Outcome};
use self::patience::{Patience, REFILL};
use self::watch::Watches;

/// Changes come in groups: as many links as an adapter has, or all steps of `ip`. After the first, this long is waited for the others.
const SETTLE: Duration = Duration::from_millis(20);

/// What `cangwd` is told.
pub struct Options {
    /// Where the topologies are.
    pub sources: Sources,
    /// Whether everything goes when the daemon is told to end.
    pub teardown: bool,
    /// The control socket to be made, if systemd gives none.
    pub socket: Option<PathBuf>,
}

/// What was found and done last, for those who ask.
#[derive(Default)]
pub(crate) struct Health {
    outcome: Mutex<Outcome>,
    /// Since when a pass has been running.
    busy: Mutex<Option<Instant>>,
}

impl Health {
    fn outcome(&self) -> Outcome {
        let outcome = self.outcome.lock();
        outcome.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_busy(&self, since: Option<Instant>) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Whether a pass has been running for longer than this.
    fn hangs(&self, limit: Duration) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.is_some_and(|since| since.elapsed() > limit)
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When a topology file is wrong or the control socket cannot be made at the start; what the kernel refuses is logged and tried again.
pub fn run(options: &Options) -> Result<()> {
    crate::capability::require("keeping topologies and rules")?;
    let keeper = Keeper::load(options.sources.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(serve(options, keeper))
}

async fn serve(options: &Options, mut keeper: Keeper) -> Result<()> {
    // Signals that come from now on are not lost.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let health = Arc::new(Health::default());
    let changed = Arc::new(Notify::new());
    let mut watches = Watches::new(Arc::clone(&changed));
    let (reloads, mut asked) = mpsc::channel::<Reload>(1);
    let listener = control::listener(options.socket.as_deref())?;
    let _control = listener.map(|listener| {
        let control = Arc::new(Control::new(Arc::clone(&health), reloads.clone()));
        tokio::spawn(control::serve(listener, control))
    });
    if let Some(period) = sd_notify::watchdog_enabled() {
        tokio::spawn(feed_watchdog(period, Arc::clone(&health)));
    }
    let mut patience = Patience::new(Instant::now());
    let mut ready = false;
    loop {
        // Those that have lost their names are to go before others are made.
        watches.follow(keeper.namespaces());
        health.set_busy(Some(Instant::now()));
        let (returned, outcome) = spawn_blocking(move || {
            let outcome = keeper.keep();
            (keeper, outcome)
        })
        .await
        .context("a pass ended with a panic")?;
        keeper = returned;
        health.set_busy(None);
        watches.follow(keeper.namespaces());
        let quarrel = outcome.steps != 0 && !patience.spend(Instant::now());
        let again = outcome.again;
        tell(&health, outcome);
        if !ready {
            ready = true;
            let _ = sd_notify::notify(&[NotifyState::Ready]);
        }
        let rest = async {
            match again {
                _ if quarrel => tokio::time::sleep(REFILL).await,
                Some(time) => tokio::time::sleep_until(time.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified(), if !quarrel => tokio::time::sleep(SETTLE).await,
            () = rest => {}
            _ = hangup.recv() => reload(&mut keeper, None),
            Some(answer) = asked.recv() => reload(&mut keeper, Some(answer)),
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

/// Reads the files again. If they are wrong, everything stays as it is.
fn reload(keeper: &mut Keeper, answer: Option<Reload>) {
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
    if let Some(answer) = answer {
        // The client may be gone.
        let _ = answer.send(result.map_err(|e| e.to_string()));
    }
}

/// Logs what is new, and tells the service manager.
fn tell(health: &Health, outcome: Outcome) {
    let before = health.outcome();
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
    *health
        .outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = outcome;
}

/// Tells the service manager that this process is alive, unless a pass takes longer than the manager's patience.
async fn feed_watchdog(patience: Duration, health: Arc<Health>) {
    let mut ticks = tokio::time::interval(patience / 2);
    loop {
        ticks.tick().await;
        if !health.hangs(patience) {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }
}
