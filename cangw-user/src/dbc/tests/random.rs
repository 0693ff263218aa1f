//! Random signals against a walk from bit to bit.

use proptest::prelude::*;

use super::*;

/// The bits of a signal from the least significant one, by walking as the format describes it.
fn walk(order: ByteOrder, start: u16, bits: u16) -> Vec<(usize, u8)> {
    let (mut byte, mut bit) = (usize::from(start / 8), (start % 8) as u8);
    let mut bits: Vec<_> = (0..bits)
        .map(|_| {
            let place = (byte, bit);
            match order {
                ByteOrder::Intel if bit == 7 => (byte, bit) = (byte + 1, 0),
                ByteOrder::Intel => bit += 1,
                ByteOrder::Motorola if bit == 0 => (byte, bit) = (byte + 1, 7),
                ByteOrder::Motorola => bit -= 1,
            }
            place
        })
        .collect();
    if order == ByteOrder::Motorola {
        bits.reverse();
    }
    bits
}

prop_compose! {
    fn any_signal()(
        start in 0..512_u16,
        bits in 1..=64_u16,
        motorola in any::<bool>(),
        signed in any::<bool>(),
        factor in prop_oneof![Just("1"), Just("0.1"), Just("-0.015625"), Just("250")],
        offset in prop_oneof![Just("0"), Just("-40"), Just("0.5")],
    ) -> Signal {
        let (order, sign) = (u8::from(!motorola), if signed { '-' } else { '+' });
        let dbc = one(64, &format!("S : {start}|{bits}@{order}{sign} ({factor},{offset})"));
        dbc.messages[0].signals[0].clone()
    }
}

proptest! {
    #[test]
    fn bits_lie_where_a_walk_finds_them(signal in any_signal(), raw in any::<u64>(), fill in any::<u8>()) {
        let places = walk(signal.byte_order, signal.start, signal.bits);
        let fits = places.iter().all(|(byte, _)| *byte < MAX_DATA);
        prop_assert_eq!(signal.flaw().is_none(), fits);
        if fits {
            let (mut mask, mut bits, mut data) = ([0; 64], [0; 64], [fill; 64]);
            for (i, (byte, bit)) in places.into_iter().enumerate() {
                mask[byte] |= 1 << bit;
                bits[byte] |= ((raw >> i & 1) as u8) << bit;
            }
            for i in 0..64 {
                data[i] = data[i] & !mask[i] | bits[i];
            }
            prop_assert_eq!(signal.mask(), mask);
            prop_assert_eq!(signal.put(raw), bits);
            let raw = signal.raw(&data).unwrap();
            prop_assert_eq!(signal.encode_raw(raw, 0.0).unwrap(), bits);
        }
    }

    #[test]
    fn values_survive_their_bits(signal in any_signal(), data in any::<[u8; 64]>()) {
        if signal.flaw().is_none() && signal.bits <= 44 {
            let bits: Vec<u8> = data.iter().zip(signal.mask()).map(|(d, m)| d & m).collect();
            let value = signal.decode(&data).unwrap();
            let encoded = signal.encode(value).unwrap();
            prop_assert_eq!(&encoded[..], bits);
            prop_assert_eq!(signal.decode(&encoded), Some(value));
        }
    }

    #[test]
    fn floating_point_numbers_survive_their_bits(
        value in any::<f64>(), single in any::<f32>(), start in 0..448_u16, order in 0..2,
    ) {
        let file = |bits, kind| {
            let text = format!("BO_ 1 M: 64 X\n SG_ S : {start}|{bits}@{order}- (1,0) [0|0] \"\" X\nSIG_VALTYPE_ 1 S : {kind};");
            Dbc::parse(&text).unwrap().messages[0].signals[0].clone()
        };
        let double = file(64, 2);
        if double.flaw().is_none() {
            prop_assert_eq!(double.decode(&double.encode(value).unwrap()), Some(value));
        }
        let float = file(32, 1);
        let single = f64::from(single);
        prop_assert_eq!(float.decode(&float.encode(single).unwrap()), Some(single));
    }

    #[test]
    fn sets_of_disjoint_signals_merge(a in any_signal(), b in any_signal()) {
        let set = |signal: &Signal| Set {
            message: "M".into(), can_id: 1, len: 64, mask: signal.mask(), bits: signal.put(0x5A5A_A5A5_DEAD_BEEF),
        };
        let (a, b) = (set(&a), set(&b));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        match (ab.merge(&b), ba.merge(&a)) {
            (Ok(()), Ok(())) => {
                prop_assert_eq!(&ab, &ba);
                for i in 0..MAX_DATA {
                    prop_assert_eq!(ab.bits[i] & a.mask[i], a.bits[i]);
                    prop_assert_eq!(ab.bits[i] & b.mask[i], b.bits[i]);
                    prop_assert_eq!(ab.mask[i], a.mask[i] | b.mask[i]);
                }
            }
            (Err(_), Err(_)) => prop_assert!((0..MAX_DATA).any(|i| a.mask[i] & b.mask[i] != 0)),
            _ => prop_assert!(false, "one way only"),
        }
    }
}
