//! A bus that is shared: its port, the frames that leave it, and those that come.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cangw_common::frame::FrameType;
use tokio::sync::mpsc;

use super::board::{Board, Delivery};
use super::clock;
use super::config;
use super::engine::{Class, Line, Message};
use super::wire::{self, Frames, Head, Session};
use crate::error::{Error, Result};
use crate::kernel::sockets::Inbox;
use crate::tunnel::backoff::Backoff;
use crate::tunnel::port::{Port, Ports, Written, close, on_ports};

/// Bytes of a message after which the next frame is in another one.
const FULL: usize = 32 << 10;
/// Messages, and bytes of frames, that wait for the bus, at most.
const MESSAGES: usize = 1024;
const BYTES: usize = 16 << 20;

/// Frames on their way to the bus. Whoever brings them does not wait.
#[derive(Clone)]
pub(super) struct Entrance {
    bus: Arc<str>,
    board: Arc<Board>,
    queue: mpsc::Sender<Delivery>,
    bytes: Arc<AtomicUsize>,
}

/// The other end of it. What is still there when this goes is counted.
pub(super) struct Exit {
    bus: Arc<str>,
    board: Arc<Board>,
    queue: mpsc::Receiver<Delivery>,
    bytes: Arc<AtomicUsize>,
}

/// The way of frames to a bus.
pub(super) fn way(bus: &str, board: &Arc<Board>) -> (Entrance, Exit) {
    let (sender, queue) = mpsc::channel(MESSAGES);
    let bytes = Arc::new(AtomicUsize::new(0));
    let bus: Arc<str> = bus.into();
    let exit = Exit {
        bus: Arc::clone(&bus),
        board: Arc::clone(board),
        queue,
        bytes: Arc::clone(&bytes),
    };
    let entrance = Entrance {
        bus,
        board: Arc::clone(board),
        queue: sender,
        bytes,
    };
    (entrance, exit)
}

impl Entrance {
    /// A message has come from another host.
    pub fn take(&self, message: &Message<'_>) {
        let content = Head::decode(message.head).zip(Frames::decode(message.frames).ok());
        let Some(delivery) = self.board.lock().take(&self.bus, message, content) else {
            return;
        };
        let (size, count) = (delivery.frames.bytes(), delivery.count());
        let has_room = self.bytes.fetch_add(size, Ordering::Relaxed) + size <= BYTES;
        if !has_room || self.queue.try_send(delivery).is_err() {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            self.board
                .received(message.host, &self.bus, |c| c.no_room += count);
        }
    }
}

impl Exit {
    async fn next(&mut self) -> Option<Delivery> {
        let delivery = self.queue.recv().await?;
        self.bytes
            .fetch_sub(delivery.frames.bytes(), Ordering::Relaxed);
        Some(delivery)
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        self.queue.close();
        while let Ok(delivery) = self.queue.try_recv() {
            self.board
                .sent(&self.bus, |c| c.no_port += delivery.count());
        }
    }
}

/// A bus and what it is shared by.
pub(super) struct Shared<L> {
    pub name: String,
    /// Number of its port.
    pub number: u32,
    pub bus: config::Bus,
    pub max_age: Duration,
    pub flush: Duration,
    pub ports: Arc<dyn Ports>,
    pub board: Arc<Board>,
    pub line: L,
    pub own: Session,
}

impl<L: Line> Shared<L> {
    /// Shares the bus as long as anybody brings frames for it.
    pub async fn run(&self, mut exit: Exit) {
        let mut backoff = Backoff::default();
        let mut outgoing = Outgoing::default();
        loop {
            let begin = Instant::now();
            let error = match self.open().await {
                Ok(port) => {
                    self.set_error(None);
                    let ended = tokio::select! {
                        error = self.drain(&port, &mut outgoing) => Some(error),
                        ended = self.deliver(&port, &mut exit) => ended,
                    };
                    drop(port);
                    if let Some(kept) = close(&self.ports, self.number).await {
                        self.board.sent(&self.name, |c| c.add_kept_back(&kept));
                    }
                    let Some(error) = ended else { return };
                    Error::io("use a port of a bus", error)
                }
                Err(e) => e,
            };
            self.set_error(Some(error.to_string()));
            let pause = tokio::time::sleep(backoff.next(begin.elapsed()));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    delivery = exit.next() => {
                        let Some(delivery) = delivery else { return };
                        self.board.sent(&self.name, |c| c.no_port += delivery.count());
                    }
                }
            }
        }
    }

    fn set_error(&self, error: Option<String>) {
        if let Some(bus) = self.board.lock().buses.get_mut(&self.name) {
            if error.is_some() && bus.error != error {
                tracing::warn!(
                    "federation, bus {}: {}",
                    self.name,
                    error.as_deref().unwrap_or_default()
                );
            }
            bus.error = error;
        }
    }

    async fn open(&self) -> Result<Port> {
        let number = self.number;
        let socket = on_ports(&self.ports, move |ports| ports.open(number)).await?;
        Port::new(socket).map_err(|e| Error::io("use a port of a bus", e))
    }

    /// Sends what comes out of the bus, until that is not possible any more.
    async fn drain(&self, port: &Port, outgoing: &mut Outgoing) -> io::Error {
        let mut inbox = Inbox::new(FrameType::Xl.mtu() as usize);
        let mut missed = 0;
        loop {
            if let Err(e) = self.gather(port, &mut inbox, outgoing, &mut missed).await {
                return e;
            }
            outgoing.send(Class::Normal, self);
        }
    }

    /// Takes frames from when there is one until it is time to send those that can wait. Real-time frames are sent at once.
    async fn gather(
        &self,
        port: &Port,
        inbox: &mut Inbox,
        outgoing: &mut Outgoing,
        missed: &mut u32,
    ) -> io::Result<()> {
        port.receive(inbox).await?;
        self.take(inbox, outgoing, missed);
        if self.flush.is_zero() {
            return Ok(());
        }
        let until = tokio::time::Instant::now() + self.flush;
        if self.bus.realtime.is_empty() && !outgoing.is_empty() {
            // The socket keeps what comes meanwhile; to be woken up for each frame is what costs most.
            tokio::time::sleep_until(until).await;
        }
        while !outgoing.is_empty() {
            let Ok(received) = tokio::time::timeout_at(until, port.receive(inbox)).await else {
                break;
            };
            received?;
            self.take(inbox, outgoing, missed);
        }
        Ok(())
    }

    /// Takes the frames that were read.
    fn take(&self, inbox: &Inbox, outgoing: &mut Outgoing, missed: &mut u32) {
        outgoing.time = clock::now();
        let mut unfit = 0;
        for (bytes, _) in inbox.messages() {
            let is_sent = bytes.is_some_and(|bytes| outgoing.push(bytes, self));
            unfit += u64::from(!is_sent);
        }
        outgoing.send(Class::RealTime, self);
        let overflow = inbox.overflow().unwrap_or(*missed);
        let overrun = u64::from(overflow.wrapping_sub(*missed));
        *missed = overflow;
        if unfit + overrun != 0 {
            self.board.sent(&self.name, |counters| {
                counters.unfit += unfit;
                counters.overrun += overrun;
            });
        }
    }

    /// Gives the bus what has come. `None` at the end of all.
    async fn deliver(&self, port: &Port, exit: &mut Exit) -> Option<io::Error> {
        loop {
            let delivery = exit.next().await?;
            let (host, bus) = (&delivery.host, &self.name);
            let age = self.board.lock().age(host, delivery.time, clock::now());
            if age > self.max_age {
                self.board
                    .received(host, bus, |c| c.too_old += delivery.count());
                continue;
            }
            let mut written = Written::default();
            let frames = delivery.frames.iter().skip(delivery.repeated);
            let result = port.write(frames, &mut written).await;
            self.board.received(host, bus, |counters| {
                counters.received += written.taken;
                counters.refused += written.refused;
            });
            if let Err(e) = result {
                let rest = delivery.count() - written.taken - written.refused;
                self.board.sent(bus, |c| c.no_port += rest);
                return Some(e);
            }
        }
    }
}

/// Frames that were taken off the bus, by class.
#[derive(Default)]
struct Outgoing {
    /// When the latest were.
    time: u64,
    classes: [Batch; 2],
}

#[derive(Default)]
struct Batch {
    /// Number of the next frame after these.
    next: u64,
    count: u64,
    /// When the first of them was taken off the bus.
    time: u64,
    bytes: Vec<u8>,
}

impl Outgoing {
    /// Whether no frames wait.
    fn is_empty(&self) -> bool {
        self.classes.iter().all(|batch| batch.count == 0)
    }

    /// Adds a frame; whether it is one.
    fn push<L: Line>(&mut self, frame: &[u8], shared: &Shared<L>) -> bool {
        let [normal, realtime] = &mut self.classes;
        let before = normal.bytes.len();
        let Some(id) = wire::encode(frame, &mut normal.bytes) else {
            return false;
        };
        let (class, batch) = if shared.bus.is_realtime(id) {
            realtime.bytes.extend(normal.bytes.drain(before..));
            (Class::RealTime, realtime)
        } else {
            (Class::Normal, normal)
        };
        if batch.count == 0 {
            batch.time = self.time;
        }
        batch.count += 1;
        if batch.bytes.len() > FULL {
            self.send(class, shared);
        }
        true
    }

    /// Sends the frames of a class that have been added.
    fn send<L: Line>(&mut self, class: Class, shared: &Shared<L>) {
        let batch = &mut self.classes[class as usize];
        if batch.count == 0 {
            return;
        }
        let head = Head {
            origin: shared.own,
            number: batch.next,
            time: batch.time,
        };
        let count = mem::take(&mut batch.count);
        batch.next += count;
        let frames = mem::take(&mut batch.bytes);
        let result = shared.line.send(class, &head.encode(), frames);
        shared.board.sent(&shared.name, |counters| match result {
            Ok(()) => {
                counters.sent += count;
                counters.messages += 1;
            }
            Err(_) => counters.unsent += count,
        });
    }
}
