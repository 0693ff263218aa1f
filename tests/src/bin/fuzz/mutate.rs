//! Changes inputs at random.

use fastrand::Rng;

/// Numbers at which something may change.
const NUMBERS: [u8; 12] = [0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 127, 255];
/// Characters of identifiers and numbers.
const CHARACTERS: &[u8] = b"0123456789abcdefABCDEFx:.-~ \n\"'=[]#\\";

/// Changes an input in a few places. `other` is one to take parts from, `words` are what the target's inputs are made of.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Rng) {
    for _ in 0..random.usize(1..=4) {
        once(input, other, words, random);
    }
}

fn once(input: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Rng) {
    let at = random.usize(0..=input.len());
    let length = *choose(&[1, 1, 2, 4, 8, 16, 128], random);
    let end = (at + random.usize(1..=length)).min(input.len());
    match random.u8(0..11) {
        0 => replace(input, at, random.u8(..)),
        1 => replace(input, at, *choose(&NUMBERS, random)),
        2 | 3 => replace(input, at, *choose(CHARACTERS, random)),
        4 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u8(0..8);
            }
        }
        5 => drop(input.drain(at..end)),
        6 => {
            let part = input[at..end].to_vec();
            drop(input.splice(at..at, part));
        }
        7 => {
            let from = random.usize(0..=other.len());
            let to = (from + random.usize(1..=64)).min(other.len());
            let place = if random.bool() { at..end } else { at..at };
            drop(input.splice(place, other[from..to].iter().copied()));
        }
        8 | 9 if !words.is_empty() => {
            let word = choose(words, random).bytes();
            let place = if random.bool() { at..end } else { at..at };
            drop(input.splice(place, word));
        }
        10 if random.u8(0..8) == 0 => input.truncate(at),
        _ => input.insert(at, *choose(CHARACTERS, random)),
    }
}

fn replace(input: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = value;
    }
}

fn choose<'a, T>(from: &'a [T], random: &mut Rng) -> &'a T {
    &from[random.usize(0..from.len())]
}
