//! A socket to rtnetlink for messages that netlink-packet-route cannot carry: their payload is bytes.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN,
};
use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Bytes of `struct nlmsghdr`.
const HEAD: usize = 16;
/// The kernel's answers have at most 32 KiB.
const BUFFER: usize = 1 << 16;
/// Calls after which a dump that others disturb each time is given up.
const ATTEMPTS: usize = 20;

/// A connection to rtnetlink in the current network namespace.
pub struct RouteSocket {
    socket: Socket,
    /// Its port; answers to others have another.
    port: u32,
    sequence: u32,
}

/// A message in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `RTM_…` or `NLMSG_…`.
    pub kind: u16,
    /// `NLM_F_…`.
    pub flags: u16,
    /// Number of the request that it answers.
    pub sequence: u32,
    /// Port of the socket that asked.
    pub port: u32,
    /// What follows.
    pub payload: &'a [u8],
}

impl RouteSocket {
    /// Connects.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let port = socket.bind_auto()?.port_number();
        Ok(Self {
            socket,
            port,
            sequence: 0,
        })
    }

    /// Sends a request and waits for its acknowledgement.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn change(&mut self, kind: u16, payload: &[u8]) -> io::Result<()> {
        self.send(kind, NLM_F_REQUEST | NLM_F_ACK, payload)?;
        loop {
            let datagram = self.receive()?;
            for message in self.answers(&datagram)? {
                if message.kind == NLMSG_ERROR {
                    return status(message.payload);
                }
            }
        }
    }

    /// Sends a request for a dump, and collects the payloads of all answers of the kind `answer`.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn dump(&mut self, kind: u16, payload: &[u8], answer: u16) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..ATTEMPTS {
            if let Some(payloads) = self.try_dump(kind, payload, answer)? {
                return Ok(payloads);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the list changed each time while it was read",
        ))
    }

    /// `None` when the kernel says that what it listed changed meanwhile.
    fn try_dump(
        &mut self,
        kind: u16,
        payload: &[u8],
        answer: u16,
    ) -> io::Result<Option<Vec<Vec<u8>>>> {
        self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, payload)?;
        let mut payloads = Vec::new();
        let mut consistent = true;
        loop {
            let datagram = self.receive()?;
            for message in self.answers(&datagram)? {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        // An empty end is one without an error.
                        if !message.payload.is_empty() {
                            status(message.payload)?;
                        }
                        return Ok(consistent.then_some(payloads));
                    }
                    NLMSG_NOOP => {}
                    NLMSG_OVERRUN => return Err(invalid("the kernel lost a part of its answer")),
                    kind if kind == answer && message.flags & NLM_F_MULTIPART != 0 => {
                        payloads.push(message.payload.to_vec());
                    }
                    kind => return Err(invalid(&format!("unexpected message of type {kind}"))),
                }
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = ((HEAD + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend(self.port.to_ne_bytes());
        bytes.extend(payload);
        let kernel = SocketAddr::new(0, 0);
        let sent = self.socket.send_to(&bytes, &kernel, 0)?;
        if sent != bytes.len() {
            return Err(invalid("the request was cut"));
        }
        Ok(())
    }

    /// A datagram from the kernel.
    fn receive(&self) -> io::Result<Vec<u8>> {
        loop {
            let mut buffer = Vec::with_capacity(BUFFER);
            // With this flag, the length is that of the whole datagram.
            let received = self.socket.recv_from(&mut buffer, libc::MSG_TRUNC);
            match received {
                Ok((len, _)) if len != buffer.len() => return Err(invalid("an answer was cut")),
                // Other processes may send, too.
                Ok((_, from)) if from.port_number() != 0 => {}
                Ok(_) => return Ok(buffer),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The messages of a datagram that answer the last request.
    fn answers<'a>(&self, datagram: &'a [u8]) -> io::Result<Vec<Message<'a>>> {
        let all = messages(datagram).ok_or_else(|| invalid("malformed answer"))?;
        let ours = |m: &Message<'_>| (m.sequence, m.port) == (self.sequence, self.port);
        Ok(all.into_iter().filter(ours).collect())
    }
}

/// The messages of a datagram; `None` when it is not made of messages.
#[must_use]
pub fn messages(datagram: &[u8]) -> Option<Vec<Message<'_>>> {
    let mut rest = datagram;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (head, _) = rest.split_first_chunk::<HEAD>()?;
        let number = |at: usize| {
            let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            u32::from_ne_bytes(bytes)
        };
        let len = usize::try_from(number(0)).ok()?;
        found.push(Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: number(8),
            port: number(12),
            payload: rest.get(HEAD..len)?,
        });
        // The last one may lack what fills it up.
        let next = len.checked_next_multiple_of(4)?;
        rest = rest.get(next..).unwrap_or_default();
    }
    Some(found)
}

/// The number at the beginning of an acknowledgement or of the end of a dump: 0, or a negative error number.
fn status(payload: &[u8]) -> io::Result<()> {
    let (number, _) = payload
        .split_first_chunk()
        .ok_or_else(|| invalid("an acknowledgement without a number"))?;
    match i32::from_ne_bytes(*number) {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number.saturating_neg())),
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with the fields that matter here.
    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEAD + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(9u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_datagram_is_split_into_messages() {
        let datagram = [
            message(24, 2, &[1, 2, 3, 4, 5]),
            message(NLMSG_DONE, 2, &[0; 4]),
        ]
        .concat();
        let found = messages(&datagram).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].flags), (24, 2));
        assert_eq!((found[0].sequence, found[0].port), (7, 9));
        assert_eq!(found[0].payload, [1, 2, 3, 4, 5]);
        assert_eq!(found[1].payload, [0; 4]);
    }

    #[test]
    fn what_is_cut_is_not_read() {
        let whole = message(24, 2, &[1, 2, 3, 4]);
        for len in 1..whole.len() {
            assert_eq!(messages(&whole[..len]), None, "{len}");
        }
        // A length that lies.
        for len in [0, 15, 21, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(messages(&bytes), None, "{len}");
        }
    }

    #[test]
    fn errors_are_negative_numbers() {
        assert!(status(&0i32.to_ne_bytes()).is_ok());
        let refused = status(&(-libc::EINVAL).to_ne_bytes()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
        assert!(status(&i32::MIN.to_ne_bytes()).is_err());
        assert!(status(&[0; 3]).is_err());
    }

    /// rtnetlink is there on every machine; interfaces can be listed by everyone.
    #[test]
    fn links_can_be_listed_and_bad_requests_are_refused() {
        let mut socket = RouteSocket::open().unwrap();
        let links = socket.dump(libc::RTM_GETLINK, &[0; 16], libc::RTM_NEWLINK);
        assert!(!links.unwrap().is_empty());
        // No link has this index, and an unprivileged caller may not even ask.
        let refused = socket.change(libc::RTM_DELLINK, &[0xFF; 16]).unwrap_err();
        assert!(refused.raw_os_error().is_some(), "{refused}");
        assert!(
            !socket
                .dump(libc::RTM_GETLINK, &[0; 16], libc::RTM_NEWLINK)
                .unwrap()
                .is_empty(),
            "the next request gets its own answer"
        );
    }
}
