//! The terminal, kept up to date.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::keys::{Choice, Then};
use super::rates::{Rates, Sample};
use super::{look, screen};
use crate::error::{Error, Result};

/// The longest time that a signal waits to be seen.
const PATIENCE: Duration = Duration::from_millis(250);

/// Shows what goes on until a key or a signal ends it. The terminal is then as before.
pub(super) fn run(interval: Duration) -> Result<()> {
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
        signal_hook::consts::SIGINT,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&ends)).map_err(failed)?;
    }
    // Before the terminal changes: an error is to be seen.
    let before = look()?;
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = refresh(&mut terminal, before, interval, &ends);
    ratatui::restore();
    result
}

fn failed(error: io::Error) -> Error {
    Error::io("show what goes on", error)
}

fn refresh(
    terminal: &mut DefaultTerminal,
    mut before: Sample,
    interval: Duration,
    ends: &AtomicBool,
) -> Result<()> {
    let mut rates = Rates::between(&before, &before);
    let mut choice = Choice::default();
    let mut next = Instant::now() + interval;
    loop {
        terminal
            .draw(|frame| screen::draw(frame, &rates, &choice))
            .map_err(failed)?;
        loop {
            if ends.load(Ordering::Relaxed) {
                return Ok(());
            }
            let now = Instant::now();
            if now >= next {
                next = now + interval;
                let sample = look()?;
                if !choice.paused {
                    rates = Rates::between(&before, &sample);
                }
                before = sample;
                break;
            }
            if !event::poll((next - now).min(PATIENCE)).map_err(failed)? {
                continue;
            }
            match event::read().map_err(failed)? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if choice.press(key, &rates) == Then::End {
                        return Ok(());
                    }
                    break;
                }
                Event::Resize(..) => break,
                _ => {}
            }
        }
    }
}
