//! `cangw dump` and `cangw trace`: frames as they come and leave.

mod units;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::watch::decoded;
use super::watch::table::signal_text;
use super::watch::text::printable;
use crate::api::client::Door;
use crate::capture::line::{Direction, Fate, Line, Told};
use crate::capture::{Capture, Filter, Format};
use crate::dbc::Dbc;
use crate::error::{Error, Result};
use crate::frame_text::Frame;
use units::{Unit, next};

/// Bytes that are read at a time.
const READ: usize = 64 << 10;

/// What `cangw dump` was asked for.
pub(super) struct Dump<'a> {
    pub filter: Filter,
    pub bus: Vec<String>,
    pub write: Option<&'a Path>,
    pub dbc: Option<&'a Path>,
    pub json: bool,
    pub count: Option<u64>,
    pub buffer: u8,
}

pub(super) fn dump(asked: Dump<'_>) -> Result<()> {
    let dbc = asked.dbc.map(Dbc::read).transpose()?;
    let format = match (asked.write, asked.json || dbc.is_some()) {
        (Some(path), _) if path.extension().is_none_or(|e| e != "log") => Format::Pcapng,
        (None, true) => Format::Json,
        _ => Format::Log,
    };
    let (mut out, to) = match asked.write {
        Some(path) => {
            let what = format!("write {}", path.display());
            let file = File::create(path).map_err(|e| Error::io(what.clone(), e))?;
            (Box::new(file) as Box<dyn Write>, what)
        }
        None => (standard_output(), STANDARD_OUTPUT.to_owned()),
    };
    let running = Running::begin(Capture {
        filter: asked.filter,
        interfaces: asked.bus,
        format,
        buffer: asked.buffer,
        ..Capture::default()
    })?;
    let result = running.each(format, asked.count, &mut out, |out, unit, bytes| {
        let Some(dbc) = &dbc else {
            return out.write_all(bytes).map(|()| true);
        };
        if let (Unit::Frame, Told::Frame(line)) = (unit, serde_json::from_slice(bytes)?) {
            let mut text = line.to_string();
            decode(&line, dbc, &mut text);
            writeln!(out, "{text}")?;
        }
        Ok(true)
    });
    result.map_err(|e| Error::io(to, e))
}

pub(super) fn trace(filter: Filter, json: bool, count: Option<u64>) -> Result<()> {
    let capture = Capture {
        filter,
        whole: true,
        ..Capture::default()
    };
    let running = Running::begin(capture)?;
    let mut out = standard_output();
    let (mut came, mut copies) = (0, 0);
    let result = running.each(Format::Json, count, &mut out, |out, _, bytes| {
        let told = serde_json::from_slice(bytes)?;
        let Told::Frame(line) = &told else {
            return Ok(true);
        };
        let comes = line.direction == Direction::In;
        if comes {
            came = line.time;
            copies = line
                .rules
                .iter()
                .filter(|rule| rule.fate == Fate::Sent)
                .count();
        } else {
            copies = copies.saturating_sub(1);
        }
        if json {
            out.write_all(bytes)?;
        } else if comes {
            out.write_all(coming(line).as_bytes())?;
        } else {
            out.write_all(leaving(line, came).as_bytes())?;
        }
        // With the last copy that left.
        Ok(copies == 0)
    });
    result.map_err(|e| Error::io(STANDARD_OUTPUT, e))
}

const STANDARD_OUTPUT: &str = "write to standard output";

fn standard_output() -> Box<dyn Write> {
    Box::new(BufWriter::with_capacity(READ, io::stdout().lock()))
}

/// A frame that came, and which rules kept their copies.
fn coming(line: &Line) -> String {
    let mut text = format!(
        "({}.{:06}) {} came on {}: {}\n",
        line.time / 1_000_000_000,
        line.time / 1000 % 1_000_000,
        line.frame,
        line.interface,
        line.verdict,
    );
    for rule in line.rules.iter().filter(|rule| rule.fate != Fate::Sent) {
        let _ = writeln!(text, "{:>16}{}", "", rule.explain());
    }
    text
}

/// A copy that left, so long after the frame came.
fn leaving(line: &Line, came: u64) -> String {
    let milliseconds = line.time.saturating_sub(came) as f64 / 1e6;
    let rule = line.rules.first().map_or("", |rule| &rule.rule);
    format!(
        "{milliseconds:>+11.3} ms  left by {} as {}: \"{rule}\"\n",
        line.interface, line.frame
    )
}

/// The message of a frame and its signals, on lines of their own.
fn decode(line: &Line, dbc: &Dbc, text: &mut String) {
    let Ok(frame) = line.frame.parse::<Frame>() else {
        return;
    };
    if let Some(message) = decoded::message(frame.kind(), frame.can_id(), dbc) {
        let _ = write!(text, "\n  {}", printable(&message.name));
        for value in decoded::values(message, frame.data()) {
            let _ = write!(text, "\n    {}", signal_text(&value));
        }
    }
}

/// A capture that runs, until a signal ends it.
struct Running {
    stream: UnixStream,
    signals: signal_hook::iterator::Handle,
    waiting: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn begin(capture: Capture) -> Result<Self> {
        let failed = |e| Error::io("wait for a signal", e);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
        let stream = UnixStream::from(Door::open()?.capture(capture)?);
        eprintln!("cangw: capturing until it is interrupted");
        let end = UnixStream::from(stream.as_fd().try_clone_to_owned().map_err(failed)?);
        let handle = signals.handle();
        let waiting = thread::spawn(move || {
            // Until they are closed, which would not be possible if they were gone.
            for _ in signals.forever() {
                // What is on its way still comes.
                let _ = end.shutdown(Shutdown::Write);
            }
        });
        Ok(Self {
            stream,
            signals: handle,
            waiting: Some(waiting),
        })
    }

    /// Shows what comes, until so many frames that count were shown; then says on standard error what was lost.
    fn each(
        self,
        format: Format,
        count: Option<u64>,
        out: &mut dyn Write,
        mut show: impl FnMut(&mut dyn Write, Unit, &[u8]) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(READ, &self.stream);
        let mut bytes = Vec::new();
        let (mut frames, mut lost, mut enough) = (0, 0, false);
        while let Some(unit) = next(&mut reader, format, &mut bytes)? {
            if let Unit::Lost(events) = unit {
                lost = events;
            }
            // What comes when there was enough is only read to its end, where the capture is gone and what was lost is known.
            if enough && unit == Unit::Frame {
                continue;
            }
            let counts = show(out, unit, &bytes)?;
            frames += u64::from(unit == Unit::Frame && counts);
            if !enough && count == Some(frames) {
                enough = true;
                self.stream.shutdown(Shutdown::Write)?;
            }
            if reader.buffer().is_empty() {
                out.flush()?;
            }
        }
        out.flush()?;
        eprintln!("cangw: {frames} frames, {lost} events lost");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signals.close();
        if let Some(waiting) = self.waiting.take() {
            let _ = waiting.join();
        }
    }
}
