//! The table on a terminal, kept up to date.

use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{self, Either};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::decoded::Decoded;
use super::history::History;
use super::screen::Screen;
use super::table::Table;
use crate::dbc::Dbc;
use crate::error::{Error, Result};
use crate::gateway::WatchedId;
use crate::kernel::terminal;

/// Time between two looks.
const REFRESH: Duration = Duration::from_millis(200);

/// Shows what `look` finds, until a signal or a key ends it.
///
/// # Errors
/// The first error of `look`, or of the terminal, which is as before by then.
pub(super) fn run<F>(interface: &str, dbc: Option<&Dbc>, look: F) -> Result<()>
where
    F: Fn() -> Result<Vec<WatchedId>> + Clone + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let result = runtime.block_on(refresh(interface, dbc, look));
    // A look can take as long as another process holds the gateway; nobody waits for its result any more.
    runtime.shutdown_background();
    result
}

async fn refresh<F>(interface: &str, dbc: Option<&Dbc>, look: F) -> Result<()>
where
    F: Fn() -> Result<Vec<WatchedId>> + Clone + Send + 'static,
{
    let mut signals = Signals::new().map_err(failed)?;
    let mut history = History::default();
    let mut screen = None;
    let mut pause = Duration::ZERO;
    loop {
        let look = look.clone();
        let mut found = pin!(async move {
            tokio::time::sleep(pause).await;
            // Aside, so that signals are heard when the gateway is held for long.
            tokio::task::spawn_blocking(look)
                .await
                .map_err(|e| Error::io("look at what was recorded", e.into()))?
        });
        let mut stop = false;
        let ids = loop {
            match future::select(found.as_mut(), pin!(signals.next())).await {
                Either::Left((ids, _)) => break ids?,
                Either::Right((Event::End, _)) => return Ok(()),
                // Not before the look is over, which holds the gateway.
                Either::Right((Event::Stop, _)) => stop = true,
            }
        };
        pause = REFRESH;
        if stop {
            screen = None;
            terminal::stop();
        }
        // After the first look: where nothing is recorded, there is nothing to show.
        let screen = match &mut screen {
            Some(screen) => screen,
            none => none.insert(Screen::enter().map_err(failed)?),
        };
        if screen.wants_to_end() {
            return Ok(());
        }
        let rows = Decoded::all(&ids, dbc);
        let marks = history.update(&rows, Instant::now());
        let (width, height) = Screen::size();
        let title = format!("identifiers on {interface}: {} (q ends)", rows.len());
        let table = Table::new(&rows, &marks, dbc.is_some(), Some(width));
        screen
            .show(&table.fit(&title, width, height))
            .map_err(failed)?;
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("show the table", error)
}

/// What a signal asks for.
enum Event {
    End,
    Stop,
}

/// The signals after which the terminal has to be restored.
struct Signals {
    ends: Vec<Signal>,
    stops: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let ends = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::quit(),
            SignalKind::hangup(),
        ];
        Ok(Self {
            ends: ends.into_iter().map(signal).collect::<Result<_, _>>()?,
            stops: signal(SignalKind::from_raw(libc::SIGTSTP))?,
        })
    }

    /// Waits for one.
    async fn next(&mut self) -> Event {
        future::poll_fn(|context| {
            let mut came = |signal: &mut Signal| signal.poll_recv(context).is_ready();
            // All are asked, because only those that were wake this up.
            let ends = self.ends.iter_mut().filter_map(|s| came(s).then_some(()));
            let ends = ends.count() > 0;
            match (ends, came(&mut self.stops)) {
                (true, _) => Poll::Ready(Event::End),
                (false, true) => Poll::Ready(Event::Stop),
                (false, false) => Poll::Pending,
            }
        })
        .await
    }
}
