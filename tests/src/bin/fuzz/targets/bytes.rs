//! Bytes: messages of the kernel, and frames.

use std::cell::RefCell;

use cangw::compile::{self, Compiled, Input, Interface, States};
use cangw::kernel::gw::socket::messages;
use cangw::kernel::gw::{Job, Names};
use cangw::kernel::link::Link;
use cangw_common::abi::{CROSS_CHUNK, Cross, Space, Tables, XL_HALF, XL_PRIORITIES, XlTables};
use cangw_common::classify::{IdClass, ListId, Lookup, XlFields, classify, id_class};
use cangw_common::edit::{DLC, Edit, FrameBytes, Span};
use cangw_common::frame::{FrameType, Head, MAX_PREFIX, SFF_MASK, field, layout, layout_by_length};
use cangw_common::rule::{Filter, Match};

use super::{Target, outcome, refused};

/// What a kernel sent, in hexadecimal, with the lines of `cangw -L` between.
const CAPTURED: &str = include_str!("../../../../../cangw-user/src/kernel/gw/captured.txt");

pub(super) fn targets() -> Vec<Target> {
    let target = |name, run, seeds| Target {
        name,
        run,
        seeds,
        words: &[],
    };
    vec![
        target("netlink", netlink, rules_of_can_gw),
        target("datagram", datagram, || {
            vec![datagram_of(&rules_of_can_gw())]
        }),
        target("frame", frame, || {
            vec![vec![0, 16, 0, 0, 0], frame_bytes(8), frame_bytes(64)]
        }),
        target("rules", rules, rule_bytes),
        target("tables", tables, || vec![vec![0; 40], (0..=255).collect()]),
        target("edit", edit, || {
            vec![vec![0; 440], (0..=255).cycle().take(600).collect()]
        }),
    ]
}

/// Takes numbers from an input; what is missing is 0.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    fn u8(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn kind(&mut self) -> FrameType {
        FrameType::ALL[usize::from(self.u8()) % 3]
    }
}

fn rules_of_can_gw() -> Vec<Vec<u8>> {
    let is_hex = |line: &&str| line.bytes().all(|b| b.is_ascii_hexdigit());
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hexadecimal");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    CAPTURED
        .lines()
        .filter(is_hex)
        .map(|line| line.as_bytes().chunks(2).map(byte).collect())
        .collect()
}

/// A rule of can-gw is the same after it was encoded and decoded again, and what can be imported can be written down.
fn netlink(input: &[u8]) -> u64 {
    let job = match Job::decode(input) {
        Ok(job) => job,
        Err(error) => return refused(&error),
    };
    let again = Job::decode(&job.encode()).expect("what was encoded can be decoded");
    assert!(again.same(&job), "{job:?}\n{again:?}");
    let link = |index| Link {
        index,
        name: format!("vcan{index}"),
        is_can: true,
        mtu: 72,
        up: true,
        kind: "vcan".into(),
        peer: None,
        other_end: None,
    };
    match job.to_rule(&Names::from([link(2), link(3)].as_slice())) {
        Ok(rule) => super::text::rule(&rule),
        Err(refusal) => refused(&refusal),
    }
}

fn datagram_of(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payload in payloads {
        bytes.extend(((16 + payload.len()) as u32).to_ne_bytes());
        bytes.extend([24, 0, 2, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Messages lie within the datagram, one after the other.
fn datagram(input: &[u8]) -> u64 {
    let Some(messages) = messages(input) else {
        return 0;
    };
    let mut end = input.as_ptr() as usize;
    for message in &messages {
        let start = message.payload.as_ptr() as usize;
        assert!(start >= end + 16);
        end = start + message.payload.len();
        let _ = Job::decode(message.payload);
    }
    assert!(end <= input.as_ptr() as usize + input.len());
    outcome(messages.len())
}

fn frame_bytes(len: u8) -> Vec<u8> {
    let mut bytes = vec![1, 72, 0, 0, 0x23, 1, 0, 0, len];
    bytes.extend(0..64);
    bytes
}

/// Where a frame lies in a buffer is within the buffer, and a valid head means that the data is there.
fn frame(input: &[u8]) -> u64 {
    let mut source = Source(input);
    let (kind, total, virtual_device) =
        (source.kind(), u32::from(source.u16()), source.u8() & 1 == 0);
    let head_bytes: [u8; field::HEAD] = source.bytes();
    let head = Head::from_bytes(head_bytes);
    let by_length = layout_by_length(total, head_bytes[field::LEN], head.xl_len, virtual_device);
    let found = [layout(kind, total), by_length];
    for layout in found.into_iter().flatten() {
        assert_eq!(layout.prefix + layout.len, total);
        assert!(layout.prefix <= MAX_PREFIX);
        if head.is_valid(layout) {
            let data = match layout.kind {
                FrameType::Xl => u32::from(head.xl_len) + 12,
                FrameType::Classic | FrameType::Fd => u32::from(head.len_or_flags) + 8,
            };
            assert!(data <= layout.len);
        }
    }
    outcome(found.map(|layout| layout.map(|l| (l.kind, head.is_valid(l)))))
}

fn rule_bytes() -> Vec<Vec<u8>> {
    let rule = |kind: u8, id: u32, mask: u32| {
        let mut bytes = vec![kind];
        bytes.extend(id.to_le_bytes());
        bytes.extend(mask.to_le_bytes());
        bytes
    };
    let rules = [
        rule(0, 0x123, 0x7FF),
        rule(0, 0x8000_0123, 0x9FFF_FFFF),
        rule(1, 0x2000_0123, 0xC000_07FF),
        rule(0, 0, 0x2000_0004),
    ];
    let frames = [
        rule(0, 0x123, 0x8000_0123),
        rule(1, 0x4000_0123, 0x2000_0004),
    ];
    vec![[vec![4], rules.concat(), frames.concat()].concat()]
}

/// The tables of some rules say of each frame what a scan of the rules says.
fn rules(input: &[u8]) -> u64 {
    const INTERFACE: Interface = Interface {
        ifindex: 5,
        max_hops: 1,
        flags: 0,
    };
    let mut source = Source(input);
    let count = u32::from(source.u8() % 9);
    let rules: Vec<Input> = (0..count)
        .map(|slot| {
            let (kind, id, mask) = (source.kind(), source.u32(), source.u32());
            let predicate = Filter { id, mask }.predicate();
            Input::new(
                slot,
                Match { kind, predicate },
                INTERFACE.ifindex,
                100 + slot,
            )
        })
        .collect();
    let compiled =
        compile::compile(INTERFACE, &rules, &States::default()).expect("a few rules fit");
    let mut matched = 0;
    while !source.0.is_empty() {
        let (kind, id) = (source.kind(), source.u32());
        let mut found: Vec<u32> = compiled
            .steps(kind, id)
            .iter()
            .map(|step| step.rule)
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            scan(&rules, kind, id),
            "{kind:?} {id:#x} with {rules:?}"
        );
        matched += found.len();
    }
    outcome((count, matched.min(20), compiled.lists.len()))
}

fn scan(rules: &[Input], kind: FrameType, id: u32) -> Vec<u32> {
    if id_class(kind, id) == IdClass::Invalid {
        return Vec::new();
    }
    let id = if kind == FrameType::Xl {
        id & SFF_MASK
    } else {
        id
    };
    let hits = rules.iter().filter(|rule| rule.matches(kind, id, None));
    hits.map(|rule| rule.slot).collect()
}

/// Tables that userspace never wrote.
struct Foreign {
    numbers: RefCell<Vec<u8>>,
    xl: XlTables,
}

impl Foreign {
    fn number(&self) -> u16 {
        let mut bytes = self.numbers.borrow_mut();
        let low = bytes.pop().unwrap_or_default();
        let high = bytes.pop().unwrap_or_default();
        u16::from_le_bytes([low, high])
    }
}

impl Lookup for Foreign {
    fn exact(&self, _: u32, _: u32) -> Option<ListId> {
        Some(self.number()).filter(|n| n % 2 == 1)
    }

    fn halves(&self, _: u32, _: u16, _: usize, _: usize) -> Option<(u16, u16)> {
        Some((self.number(), self.number())).filter(|(n, _)| n % 8 != 1)
    }

    fn cross(&self, _: u32, _: u32, within: usize) -> Option<ListId> {
        assert!(within < CROSS_CHUNK);
        Some(self.number()).filter(|n| n % 8 != 1)
    }

    fn xl(&self, _: u32) -> Option<&XlTables> {
        Some(&self.xl).filter(|_| self.number() % 8 != 1)
    }
}

/// Whatever stands in the tables, a frame gets an answer, and no table is read outside its bounds.
fn tables(input: &[u8]) -> u64 {
    thread_local!(static TABLES: RefCell<Box<Tables>> = RefCell::new(Compiled::nothing().tables));
    let mut source = Source(input);
    let (kind, id) = (source.kind(), source.u32());
    TABLES.with_borrow_mut(|tables| {
        tables.head.flags = source.u32();
        for space in &mut tables.head.spaces {
            *space = Space {
                kind: source.u16() % 4,
                list: source.u16(),
                halves: source.u16(),
                low_classes: source.u16(),
                cross: source.u32(),
            };
        }
        let number = |source: &mut Source<'_>| source.u16();
        let cross = |source: &mut Source<'_>| Cross {
            first: source.u32(),
            columns: source.u32(),
        };
        let fields = XlFields {
            sdt: source.u8(),
            af: source.u32(),
        };
        let foreign = Foreign {
            xl: XlTables {
                kinds: cross(&mut source),
                acceptance: cross(&mut source),
                content: cross(&mut source),
                list: cross(&mut source),
                priority: [number(&mut source); XL_PRIORITIES],
                vcid: [number(&mut source); 256],
                sdt: [number(&mut source); 256],
                high: [number(&mut source); XL_HALF],
                low: [number(&mut source); XL_HALF],
            },
            numbers: RefCell::new(source.0.to_vec()),
        };
        let answer = classify(tables, &foreign, kind, id, || Some(fields));
        outcome((
            kind,
            id_class(kind, id) as u8,
            answer.is_ok(),
            answer.err().map(|e| e as u8),
        ))
    })
}

/// An edit that userspace never made, on any frame: lengths that are too large are refused.
fn edit(input: &[u8]) -> u64 {
    let mut source = Source(input);
    let kind = source.kind();
    let mut span = || {
        let [from, to, result, init] = source.bytes();
        Span {
            from: from as i8,
            to: to as i8,
            result: result as i8,
            init,
        }
    };
    let (crc8, xor) = (span(), span());
    let mut edit = Edit {
        crc8,
        xor,
        flags: u32::from(source.u8()),
        profile: source.u8(),
        final_xor: source.u8(),
        ..Edit::NONE
    };
    edit.profile_data = source.bytes();
    edit.keep = FrameBytes(source.bytes());
    edit.flip = FrameBytes(source.bytes());
    let from = FrameBytes(source.bytes());
    edit.table = source.bytes();
    let mut to = FrameBytes::ZERO;
    let fits = edit.apply(kind, &from, &mut to);
    let len = to.0[field::LEN];
    if fits && kind == FrameType::Fd {
        assert!(len <= 64);
    }
    if fits && kind == FrameType::Classic && edit.flags & DLC != 0 {
        assert!(len <= 8);
    }
    outcome((
        kind,
        fits,
        edit.flags & 15,
        edit.profile.min(4),
        len.min(65),
    ))
}
