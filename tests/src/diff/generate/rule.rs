//! Random rules.

use fastrand::Rng;

use super::{Pool, chance, mostly, one_of, random_data};
use crate::diff::rule::{
    Crc8, DATA, FLAGS, ID, INVERTED, LEN, Modification, Operation, Profile, Rule, Span,
};
use crate::frame::{EFF, ERR, RTR};

const STANDARD: u32 = 0x7FF;
const EXTENDED: u32 = 0x1FFF_FFFF;

/// A rule that can-gw takes, or refuses by its hop limit or by the index of a checksum.
pub(super) fn rule(rng: &mut Rng, pool: &Pool) -> Rule {
    let mut rule = Rule::new(pool.interface(rng), pool.interface(rng));
    rule.fd = chance(rng, 35);
    rule.echo = chance(rng, if rule.target.starts_with('v') { 70 } else { 30 });
    rule.timestamp = chance(rng, 20);
    rule.iif_tx_ok = rule.source == rule.target || chance(rng, 15);
    if chance(rng, 12) {
        rule.limit = rng.u8(1..=pool.max_hops);
        if chance(rng, 10) {
            rule.limit = pool.max_hops + 1;
        }
    }
    rule.filter = filter(rng, pool);
    if pool.modifications && chance(rng, 60) {
        modify(rng, pool, &mut rule);
        if chance(rng, 20) {
            // The kernel takes an FD rule's modifications for a classic rule with the same uid, and then writes beyond
            // the frame: types never share one.
            let uids = if rule.fd { [1, u32::MAX] } else { [2, 0xABC] };
            rule.uid = one_of(rng, &uids);
        }
    } else if chance(rng, 3) {
        rule.uid = 5;
    }
    rule
}

fn filter(rng: &mut Rng, pool: &Pool) -> Option<(u32, u32)> {
    let id = pool.id(rng);
    let random_mask = |rng: &mut Rng| {
        let bits = rng.u32(..) | rng.u32(..);
        bits & (EFF | RTR | EXTENDED)
    };
    let (id, mask) = match rng.u8(..24) {
        0..6 => return None,
        6 => (0, 0),
        7..10 => (id & STANDARD, EFF | RTR | STANDARD),
        10 | 11 => (id & STANDARD, STANDARD),
        12..15 => (id | EFF, EFF | RTR | EXTENDED),
        15 => (id | EFF, EFF | EXTENDED),
        16 => (id, EFF | RTR | EXTENDED),
        17 => (id & STANDARD | RTR, EFF | RTR | STANDARD),
        18 => (id, random_mask(rng)),
        19 => (id | INVERTED, random_mask(rng)),
        20 => (id & STANDARD | INVERTED, EFF | RTR | STANDARD),
        21 => (0, ERR | 1 << rng.u8(..10) | 1 << rng.u8(..10)),
        22 => (rng.u32(..), ERR | EXTENDED),
        _ => (rng.u32(..), rng.u32(..) & rng.u32(..)),
    };
    Some((id, mask))
}

/// Gives a rule modifications and, sometimes, checksums.
pub(super) fn modify(rng: &mut Rng, pool: &Pool, rule: &mut Rule) {
    let count = match rng.u8(..20) {
        0..9 => 1,
        9..14 => 2,
        14..17 => 3,
        17 | 18 => 4,
        // cangw does not look at the fifth.
        _ => 5,
    };
    rule.modifications = (0..count)
        .map(|_| modification(rng, pool, rule.fd))
        .collect();
    rule.crc8 = None;
    rule.profile = None;
    rule.xor = None;
    if chance(rng, 25) {
        rule.crc8 = Some(Crc8 {
            span: span(rng, rule.fd),
            final_xor: rng.u8(..),
            table: table(rng),
        });
    }
    if chance(rng, if rule.crc8.is_some() { 60 } else { 3 }) {
        rule.profile = Some(match rng.u8(..3) {
            0 => Profile::Byte(rng.u8(..)),
            1 => {
                let mut table = [0; 16];
                rng.fill(&mut table);
                Profile::Table(table)
            }
            _ => Profile::Identifier,
        });
    }
    if chance(rng, 25) {
        rule.xor = Some(span(rng, rule.fd));
    }
}

fn modification(rng: &mut Rng, pool: &Pool, fd: bool) -> Modification {
    let operation = one_of(rng, &Operation::ALL);
    let mut elements = 0;
    while elements == 0 {
        for element in [ID, LEN, DATA] {
            elements |= if chance(rng, 40) { element } else { 0 };
        }
        elements |= if fd && chance(rng, 30) { FLAGS } else { 0 };
    }
    let mut modification = Modification {
        operation,
        elements,
        id: operand_id(rng, pool, operation),
        len: mostly(rng, 0..=if fd { 64 } else { 15 }, 85),
        flags: mostly(rng, 0..=3, 80) * u8::from(fd),
        data: [0; 64],
    };
    random_data(rng, &mut modification.data);
    if !fd {
        modification.data[8..].fill(0);
    }
    modification
}

fn operand_id(rng: &mut Rng, pool: &Pool, operation: Operation) -> u32 {
    match (operation, rng.u8(..4)) {
        (_, 0) => rng.u32(..),
        (Operation::Set, _) => pool.id(rng),
        (Operation::And, _) => !(1 << rng.u8(..32)),
        // Mostly bits that a standard identifier has.
        (_, 1) => 1 << rng.u8(..32),
        (_, _) => rng.u32(..0x800),
    }
}

fn span(rng: &mut Rng, fd: bool) -> Span {
    let length = if fd { 64 } else { 8 };
    let mut index = || {
        if chance(rng, 1) {
            // Outside; the rule is refused.
            one_of(rng, &[length, -length - 1])
        } else {
            rng.i8(-length..length)
        }
    };
    Span {
        from: index(),
        to: index(),
        result: index(),
        init: rng.u8(..),
    }
}

fn table(rng: &mut Rng) -> Box<[u8; 256]> {
    let mut table = Box::new([0; 256]);
    if chance(rng, 30) {
        // SAE J1850.
        for (value, entry) in table.iter_mut().enumerate() {
            *entry = (0..8).fold(value as u8, |crc, _| {
                crc << 1 ^ if crc & 0x80 == 0 { 0 } else { 0x1D }
            });
        }
    } else {
        rng.fill(&mut table[..]);
    }
    table
}
