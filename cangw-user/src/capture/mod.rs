//! What becomes of frames in the gateway, seen while it happens: `cangw dump`, `cangw trace`, and the API's `capture`.
//!
//! Programs at tracepoints tell a ring buffer what comes and what leaves, with the rules that match ([`crate::kernel::tap`]); here it is put together by
//! frame, and written to a socket. Whoever reads too slowly lets the ring buffer run full: what finds no room there is counted, exactly, and told.

mod filter;
pub mod line;
mod names;
pub(crate) mod pcapng;
mod record;
mod story;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::frame_text::Frame;
use crate::gateway::Gateway;
use crate::kernel::tap::Tap;
use crate::kernel::{clock, syscall};

pub use filter::Filter;
use line::{Direction, Line, Told, Verdict};
use names::Names;
use pcapng::Pcapng;
use record::{Record, Seen};
use story::{Stories, Story};

/// MiB of the ring buffer: 10,000 events of classic frames are about one.
const RING: u8 = 16;
/// The most that can be asked for.
const LARGEST_RING: u8 = 64;
/// So many events are taken before it is looked whether the reader wants no more.
const AT_ONCE: usize = 1024;
/// So much is written at a time.
const WRITE: usize = 64 << 10;
/// How often it is looked whether the copies of a frame have left, in milliseconds, and whether something was lost.
const SOON: u16 = 20;
const LATER: u16 = 500;

/// How a capture is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A [`Told`] as JSON on each line.
    #[default]
    Json,
    /// As candump's logs, with what became of each frame behind it.
    Log,
    /// pcapng, which Wireshark reads; what became of a frame is its comment.
    Pcapng,
}

/// What is captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Frames that these name; all, when it is empty.
    #[serde(default)]
    pub filter: Filter,
    /// Frames that come or leave there; everywhere, when it is empty. A topology's bus has an interface of its name.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Only frames that come where there are rules, each followed by its copies, whatever they look like and wherever they leave.
    #[serde(default)]
    pub whole: bool,
    /// How it is written.
    #[serde(default)]
    pub format: Format,
    /// Size of the ring buffer in MiB, 1 to 64, rounded up to a power of two: what comes while nobody reads has room there.
    #[serde(default = "ring")]
    pub buffer: u8,
}

const fn ring() -> u8 {
    RING
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            interfaces: Vec::new(),
            whole: false,
            format: Format::default(),
            buffer: RING,
        }
    }
}

impl Capture {
    /// Begins in this network namespace. The other end of the socket is written to until it is shut down for writing, or closed; what happened until then still
    /// comes, and, at the end, how much was lost.
    ///
    /// # Errors
    /// When an interface is not there, or the kernel refuses.
    pub fn begin(self) -> Result<OwnedFd> {
        let failed = |e| Error::io("make a socket for a capture", e);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let names = Names::new()?;
        for interface in &self.interfaces {
            names.require(interface)?;
        }
        if !(1..=LARGEST_RING).contains(&self.buffer) {
            return Err(Error::Unsupported {
                what: format!("a buffer of {} MiB", self.buffer),
                remedy: format!("ask for 1 to {LARGEST_RING}"),
            });
        }
        let bytes = u32::from(self.buffer).next_power_of_two() << 20;
        let tap = Gateway::open()?.begin_capture(bytes)?;
        let running = Running {
            writer: Writer::new(self),
            names,
            tap,
            stream: ours,
        };
        let thread = std::thread::Builder::new().name("capture".into());
        thread.spawn(|| running.run()).map_err(failed)?;
        Ok(theirs.into())
    }
}

/// A capture at work.
struct Running {
    writer: Writer,
    names: Names,
    tap: Tap,
    stream: UnixStream,
}

impl Running {
    fn run(mut self) {
        // A reader that is gone needs nothing any more.
        let _ = self.serve();
        let place = self.tap.place();
        self.tap.detach();
        // What is left behind is removed by whoever opens the gateway next.
        if let Ok(mut gateway) = Gateway::open() {
            let _ = gateway.end_capture(place);
        }
    }

    fn serve(&mut self) -> Result<()> {
        let mut stories = Stories::default();
        let mut out = Vec::new();
        let mut lost = 0;
        self.writer.begin(&mut out);
        loop {
            let ends = self.wait(if stories.is_open() { SOON } else { LATER })?;
            if ends {
                // From here on nothing comes, so that what is counted is all.
                self.tap.detach();
                syscall::wait_for_frames();
            }
            // Not until there are no more, which may never be.
            let at_once = if ends { usize::MAX } else { AT_ONCE };
            let mut drained = false;
            for _ in 0..at_once {
                let Some(bytes) = self.tap.take() else {
                    drained = true;
                    break;
                };
                let Some(record) = Record::parse(&bytes) else {
                    continue;
                };
                drop(bytes);
                for story in stories.add(record, &mut self.names) {
                    self.writer.story(story, &mut out);
                }
                if out.len() >= WRITE {
                    write(&mut self.stream, &mut out)?;
                }
            }
            let missed = self.tap.missed()?;
            // What is still in the ring buffer may say what became of them.
            if drained {
                let now = if ends { u64::MAX } else { clock::monotonic()? };
                for story in stories.ripe(now, missed.clone(), &mut self.names) {
                    self.writer.story(story, &mut out);
                }
            }
            let missed: u64 = missed.map(|(_, missed)| missed).sum();
            if missed > lost || ends {
                lost = missed;
                let now = self.names.wall(clock::monotonic()?);
                self.writer.lost(now, lost, &mut out);
            }
            write(&mut self.stream, &mut out)?;
            if ends {
                return Ok(());
            }
        }
    }

    /// Waits for records. Whether the reader wants no more.
    fn wait(&mut self, milliseconds: u16) -> Result<bool> {
        let failed = |e: io::Error| Error::io("wait for frames", e);
        let mut both = [
            PollFd::new(self.tap.descriptor(), PollFlags::POLLIN),
            PollFd::new(self.stream.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut both, PollTimeout::from(milliseconds)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(failed(e.into())),
        }
        let has = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if !has(&both[1]) {
            return Ok(false);
        }
        // It has nothing to say but that.
        let mut word = [0; 64];
        Ok(self.stream.read(&mut word).map_err(failed)? == 0)
    }
}

fn write(stream: &mut UnixStream, out: &mut Vec<u8>) -> Result<()> {
    let written = stream.write_all(out);
    out.clear();
    written.map_err(|e| Error::io("write a capture", e))
}

/// Chooses, and writes in a format.
struct Writer {
    capture: Capture,
    pcapng: Pcapng,
}

impl Writer {
    fn new(capture: Capture) -> Self {
        Self {
            capture,
            pcapng: Pcapng::default(),
        }
    }

    fn begin(&self, out: &mut Vec<u8>) {
        if self.capture.format == Format::Pcapng {
            self.pcapng.begin(out);
        }
    }

    fn shows(&self, frame: Option<&Frame>, line: &Line) -> bool {
        let Capture {
            filter, interfaces, ..
        } = &self.capture;
        (interfaces.is_empty() || interfaces.contains(&line.interface))
            && frame.map_or(*filter == Filter::default(), |frame| filter.names(frame))
    }

    fn story(&mut self, story: Story, out: &mut Vec<u8>) {
        let whole = self.capture.whole;
        if whole {
            let has_rules =
                |line: &Line| line.direction == Direction::In && line.verdict != Verdict::NoRules;
            let first = story.lines.first();
            if !first
                .is_some_and(|(frame, line)| has_rules(line) && self.shows(frame.as_ref(), line))
            {
                return;
            }
        }
        for (frame, line) in story.lines {
            if whole || self.shows(frame.as_ref(), &line) {
                self.line(frame.as_ref(), line, out);
            }
        }
    }

    fn line(&mut self, frame: Option<&Frame>, line: Line, out: &mut Vec<u8>) {
        match (self.capture.format, frame) {
            (Format::Json, _) => json(&Told::Frame(line), out),
            (Format::Log, _) => {
                let _ = writeln!(out, "{line}");
            }
            (Format::Pcapng, Some(frame)) => self.pcapng.packet(frame, &line, out),
            // The format has no frames that are none.
            (Format::Pcapng, None) => {}
        }
    }

    fn lost(&mut self, time: u64, events: u64, out: &mut Vec<u8>) {
        match self.capture.format {
            Format::Json => json(&Told::Lost { events }, out),
            Format::Log => {
                let _ = writeln!(out, "# {events} events found no room in the ring buffer");
            }
            Format::Pcapng => self.pcapng.lost(time, events, out),
        }
    }
}

fn json(told: &Told, out: &mut Vec<u8>) {
    // What has no strings as keys cannot fail to become JSON.
    let _ = serde_json::to_writer(&mut *out, told);
    out.push(b'\n');
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(frame) => frame.fmt(f),
            Self::Malformed(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}")),
        }
    }
}
