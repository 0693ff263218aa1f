//! Rules of can-gw as netlink messages (`include/uapi/linux/can/gw.h`). A process of cangw for each rule takes ten times as long.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use crate::diff::rule::{Crc8, FLAGS, Modification, Operation, Profile, Rule, Span};
use crate::sys::{self, Ready};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes of `struct nlmsghdr`, `struct rtcanmsg` and `struct nlattr`.
const HEAD: usize = 16;
const BODY: usize = 4;
const ATTRIBUTE: usize = 4;

/// `CGW_TYPE_CAN_CAN`
const CAN_CAN: u8 = 1;
const ECHO: u16 = 1;
const SRC_TSTAMP: u16 = 2;
const IIF_TX_OK: u16 = 4;
const CAN_FD: u16 = 8;

const MOD_AND: u16 = 1;
const CS_XOR: u16 = 5;
const CS_CRC8: u16 = 6;
const HANDLED: u16 = 7;
const DROPPED: u16 = 8;
const SRC_IF: u16 = 9;
const DST_IF: u16 = 10;
const FILTER: u16 = 11;
const DELETED: u16 = 12;
const LIM_HOPS: u16 = 13;
const MOD_UID: u16 = 14;
const FDMOD_AND: u16 = 15;

/// A change of the rules.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    Add(&'a Rule),
    Delete(&'a Rule),
    Flush,
}

/// A connection to can-gw in the namespace in which it was opened.
pub struct CanGw {
    socket: OwnedFd,
    names: BTreeMap<u32, &'static str>,
}

impl CanGw {
    /// Opens one that knows interfaces by these names.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(names: BTreeMap<u32, &'static str>) -> io::Result<Self> {
        let socket = sys::route_socket()?;
        Ok(Self { socket, names })
    }

    /// Changes the rules; the kernel's errno, or 0.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn change(&self, change: Change<'_>) -> io::Result<i32> {
        let (kind, rule) = match change {
            Change::Add(rule) => (RTM_NEWROUTE, Some(rule)),
            Change::Delete(rule) => (RTM_DELROUTE, Some(rule)),
            Change::Flush => (RTM_DELROUTE, None),
        };
        let index = |name| {
            let found = self.names.iter().find(|(_, known)| **known == name);
            found.map_or(0, |(index, _)| *index)
        };
        let mut message = Message::new(kind, REQUEST | ACK, rule);
        message.number(SRC_IF, rule.map_or(0, |rule| index(rule.source)));
        message.number(DST_IF, rule.map_or(0, |rule| index(rule.target)));
        if let Some(rule) = rule {
            message.rule(rule);
        }
        sys::send(&self.socket, &message.finish())?;
        let mut answer = None;
        self.receive(|kind, payload| {
            if kind == ERROR {
                answer = Some(-i32::from_ne_bytes(four(payload)));
            }
            answer.is_some()
        })?;
        Ok(answer.unwrap_or_default())
    }

    /// The rules with their counters as `cangw -L` prints them.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn list(&self) -> io::Result<String> {
        let message = Message::new(RTM_GETROUTE, REQUEST | DUMP, None);
        sys::send(&self.socket, &message.finish())?;
        let mut text = String::new();
        self.receive(|kind, payload| {
            if kind == RTM_NEWROUTE {
                let (rule, counters) = decode(payload, &self.names);
                text += &rule.listed(counters);
            }
            kind == DONE || kind == ERROR
        })?;
        Ok(text)
    }

    /// Hands over the type and the content of each message, until `done`.
    fn receive(&self, mut done: impl FnMut(u16, &[u8]) -> bool) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            sys::wait(&self.socket, Ready::Read, crate::socket::PATIENCE)?;
            let length = sys::receive(&self.socket, &mut buffer)?.length;
            let mut rest = &buffer[..length];
            while rest.len() >= HEAD {
                let length = u32::from_ne_bytes(four(rest)) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                if done(kind, &rest[HEAD..length]) {
                    return Ok(());
                }
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            }
        }
    }
}

fn four(bytes: &[u8]) -> [u8; 4] {
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, rule: Option<&Rule>) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        let mut options = 0;
        if let Some(rule) = rule {
            for (is_so, option) in [
                (rule.echo, ECHO),
                (rule.timestamp, SRC_TSTAMP),
                (rule.iif_tx_ok, IIF_TX_OK),
                (rule.fd, CAN_FD),
            ] {
                options |= if is_so { option } else { 0 };
            }
        }
        bytes.extend([libc::AF_CAN as u8, CAN_CAN]);
        bytes.extend(options.to_ne_bytes());
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, payload: &[u8]) {
        let length = (ATTRIBUTE + payload.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_ne_bytes());
    }

    /// What can-utils' cangw sends for a rule.
    fn rule(&mut self, rule: &Rule) {
        if let Some((id, mask)) = rule.filter {
            self.attribute(FILTER, &[id.to_ne_bytes(), mask.to_ne_bytes()].concat());
        }
        if let Some(crc8) = &rule.crc8 {
            let mut bytes = span(&crc8.span).to_vec();
            bytes.push(crc8.final_xor);
            bytes.extend(&crc8.table[..]);
            let (profile, data): (u8, &[u8]) = match &rule.profile {
                None => (0, &[]),
                Some(Profile::Byte(byte)) => (1, std::slice::from_ref(byte)),
                Some(Profile::Table(table)) => (2, table),
                Some(Profile::Identifier) => (3, &[]),
            };
            bytes.push(profile);
            bytes.extend(data);
            bytes.resize(282, 0);
            self.attribute(CS_CRC8, &bytes);
        }
        if let Some(xor) = &rule.xor {
            self.attribute(CS_XOR, &span(xor));
        }
        if rule.uid != 0 {
            self.number(MOD_UID, rule.uid);
        }
        if rule.limit != 0 {
            self.attribute(LIM_HOPS, &[rule.limit]);
        }
        for m in rule.modifications.iter().take(4) {
            let data: &[u8] = if rule.fd { &m.data } else { &m.data[..8] };
            let mut bytes = m.id.to_ne_bytes().to_vec();
            bytes.extend([m.len, m.flags, 0, 0]);
            bytes.extend(data);
            bytes.push(m.elements);
            let first = if rule.fd { FDMOD_AND } else { MOD_AND };
            self.attribute(first + m.operation as u16, &bytes);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn span(span: &Span) -> [u8; 4] {
    [span.from as u8, span.to as u8, span.result as u8, span.init]
}

fn span_of(bytes: &[u8]) -> Span {
    Span {
        from: bytes[0] as i8,
        to: bytes[1] as i8,
        result: bytes[2] as i8,
        init: bytes[3],
    }
}

/// A rule and its counters.
fn decode(payload: &[u8], names: &BTreeMap<u32, &'static str>) -> (Rule, [u64; 3]) {
    let options = u16::from_ne_bytes([payload[2], payload[3]]);
    let mut rule = Rule::new("", "");
    rule.echo = options & ECHO != 0;
    rule.timestamp = options & SRC_TSTAMP != 0;
    rule.iif_tx_ok = options & IIF_TX_OK != 0;
    rule.fd = options & CAN_FD != 0;
    let mut counters = [0; 3];
    let mut rest = &payload[BODY..];
    while rest.len() >= ATTRIBUTE {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        let value = &rest[ATTRIBUTE..length];
        let number = || u32::from_ne_bytes(four(value));
        match kind {
            HANDLED => counters[0] = number().into(),
            DROPPED => counters[1] = number().into(),
            DELETED => counters[2] = number().into(),
            SRC_IF => rule.source = names[&number()],
            DST_IF => rule.target = names[&number()],
            FILTER => rule.filter = Some((number(), u32::from_ne_bytes(four(&value[4..])))),
            LIM_HOPS => rule.limit = value[0],
            MOD_UID => rule.uid = number(),
            CS_XOR => rule.xor = Some(span_of(value)),
            CS_CRC8 => {
                let mut table = Box::new([0; 256]);
                table.copy_from_slice(&value[5..261]);
                rule.crc8 = Some(Crc8 {
                    span: span_of(value),
                    final_xor: value[4],
                    table,
                });
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&value[262..278]);
                rule.profile = match value[261] {
                    1 => Some(Profile::Byte(bytes[0])),
                    2 => Some(Profile::Table(bytes)),
                    3 => Some(Profile::Identifier),
                    _ => None,
                };
            }
            MOD_AND..CS_XOR => rule.modifications.push(modification(kind - MOD_AND, value)),
            FDMOD_AND.. => rule
                .modifications
                .push(modification(kind - FDMOD_AND, value)),
            other => panic!("can-gw has an attribute {other}"),
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    (rule, counters)
}

fn modification(operation: u16, value: &[u8]) -> Modification {
    let [frame @ .., elements] = value else {
        panic!("can-gw lists an empty modification");
    };
    let mut data = [0; 64];
    data[..frame.len() - 8].copy_from_slice(&frame[8..]);
    let fd = frame.len() == 72;
    Modification {
        operation: Operation::ALL[usize::from(operation)],
        elements: if fd { *elements } else { *elements & !FLAGS },
        id: u32::from_ne_bytes(four(frame)),
        len: frame[4],
        flags: if fd { frame[5] } else { 0 },
        data,
    }
}
