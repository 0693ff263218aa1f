//! A port and what waits there to be sent: the half of a tunnel that is the same for all transports.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use cangw_common::frame::FD_LEN;
use tokio::sync::Notify;

use super::board::Board;
use super::codec::Frame;
use super::outgoing::{Outgoing, Packing};
use super::port::{self, Port, Ports, Written, on_ports};
use crate::kernel::sockets::Inbox;

/// A port of a peer.
pub(super) struct Pump {
    pub number: u32,
    pub outgoing: RefCell<Outgoing>,
    port: Port,
    board: Arc<Board>,
    changed: Notify,
}

impl Pump {
    /// Makes the port of a peer.
    pub async fn open(
        number: u32,
        ports: &Arc<dyn Ports>,
        board: &Arc<Board>,
        packing: Packing,
    ) -> crate::Result<Self> {
        let failed = |e| crate::Error::io("use a port of a bus", e);
        let socket = on_ports(ports, move |ports| ports.open(number)).await?;
        Ok(Self {
            number,
            outgoing: RefCell::new(Outgoing::new(packing)),
            port: Port::new(socket).map_err(failed)?,
            board: Arc::clone(board),
            changed: Notify::new(),
        })
    }

    /// Takes frames off the bus until that is not possible any more.
    pub async fn drain(&self) -> io::Error {
        let mut inbox = Inbox::new(FD_LEN as usize);
        let mut missed = 0;
        loop {
            if let Err(e) = self.port.receive(&mut inbox).await {
                return e;
            }
            let now = Instant::now();
            let mut outgoing = self.outgoing.borrow_mut();
            let (mut too_old, mut no_room, mut unfit) = (0, 0, 0);
            for (bytes, _) in inbox.messages() {
                let Some(frame) = bytes.and_then(Frame::from_socket) else {
                    unfit += 1;
                    continue;
                };
                let dropped = outgoing.push(frame, now);
                too_old += dropped.too_old;
                no_room += dropped.no_room;
            }
            drop(outgoing);
            self.changed.notify_one();
            let overflow = inbox.overflow().unwrap_or(missed);
            let overrun = u64::from(overflow.wrapping_sub(missed));
            missed = overflow;
            if too_old + no_room + unfit + overrun != 0 {
                self.board.count(self.number, |counters| {
                    counters.too_old += too_old;
                    counters.no_room += no_room;
                    counters.unfit += unfit;
                    counters.overrun += overrun;
                });
            }
        }
    }

    /// Waits until frames are to be sent, and throws away those that are too old.
    pub async fn due(&self) {
        loop {
            let due = self.outgoing.borrow().due();
            match due {
                Some(due) if due <= Instant::now() => {
                    if self.expire() {
                        continue;
                    }
                    return;
                }
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due.into()) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Throws away frames that are too old. Whether none is left.
    pub fn expire(&self) -> bool {
        let mut outgoing = self.outgoing.borrow_mut();
        let too_old = outgoing.expire(Instant::now());
        if too_old != 0 {
            self.board
                .count(self.number, |counters| counters.too_old += too_old);
        }
        outgoing.is_empty()
    }

    /// Gives frames to the bus.
    pub async fn deliver(&self, frames: &[Frame]) -> io::Result<()> {
        let mut written = Written::default();
        let frames = frames.iter().map(Frame::socket_bytes);
        let result = self.port.write(frames, &mut written).await;
        self.board.count(self.number, |counters| {
            counters.received += written.taken;
            counters.refused += written.refused;
        });
        result
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let left = self.outgoing.borrow().len() as u64;
        if left != 0 {
            self.board
                .count(self.number, |counters| counters.unsent += left);
        }
    }
}

/// Takes a port off the bus. What it kept back is remembered.
pub(super) async fn close(ports: &Arc<dyn Ports>, board: &Board, number: u32) {
    if let Some(port) = port::close(ports, number).await {
        board.count(number, |counters| counters.add_kept_back(&port));
    }
}
