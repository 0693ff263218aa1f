//! DBC files: whatever they say of a signal, it is read and written within its bits.

use cangw::dbc::{Dbc, Encoding, MAX_DATA, Message, Signal};

use super::{Target, outcome, refused};

const FILE: &str = "VERSION \"\"\nNS_ :\n\tCM_\nBS_:\nBU_: A B\n\
    BO_ 344 E: 8 A\n SG_ RPM : 23|16@0+ (1,0) [0|15000] \"rpm\" B\n SG_ T : 8|12@1- (0.1,-40) [0|0] \"\" B\n\
    BO_ 2566844672 X: 64 A\n SG_ K M : 0|8@1+ (1,0) [0|0] \"\" B\n SG_ L m0M : 8|8@1+ (1,0) [0|0] \"\" B\n \
    SG_ F m1 : 32|32@1- (2,0) [0|0] \"\" B\n SG_ D : 71|64@0+ (1,0) [0|0] \"\" B\n\
    CM_ SG_ 344 RPM \"c\";\nBA_DEF_ BO_ \"G\" INT 0 9;\nBA_ \"G\" BO_ 344 5;\n\
    VAL_ 344 RPM 0 \"off\" 1 \"on\" ;\nSIG_VALTYPE_ 2566844672 F : 1;\nSIG_VALTYPE_ 2566844672 D : 2;\n\
    SG_MUL_VAL_ 2566844672 F L 1-3;\n";
const SMALL: &str = "BO_ 1 E: 8 A\n SG_ S : 7|16@0- (0.5,-1) [0|0] \"\" B\nVAL_ 1 S 0 \"off\" ;\n";
const WORDS: &[&str] = &[
    "BO_ ",
    "\n SG_ ",
    "VAL_ ",
    "SIG_VALTYPE_ ",
    "SG_MUL_VAL_ ",
    "CM_ ",
    "BA_DEF_ ",
    " M ",
    " m1 ",
    " m1M ",
    "344 ",
    "2566844672 ",
    "4294967295",
    "18446744073709551616",
    "@0+",
    "@1-",
    "|64",
    "|0",
    "(0,0)",
    "(1e308,-1e308)",
    "(-1,0)",
    " : 1;\n",
    " : 2;\n",
    ": 64 A",
    " \"off\" ",
    "-1",
    "RPM",
    ";\n",
];
/// Frames to read signals from.
const FRAMES: [&[u8]; 5] = [&[], &[0; 8], &[0xFF; 8], &[0x5A; 64], &[1; 70]];

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "dbc",
        run,
        seeds: || vec![FILE.into(), SMALL.into()],
        words: WORDS,
    }]
}

fn run(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let dbc = match Dbc::parse(&text) {
        Ok(dbc) => dbc,
        Err(error) => return refused(&error),
    };
    let messages: Vec<u64> = dbc.messages().iter().map(|m| message(&dbc, m)).collect();
    outcome(&messages[..messages.len().min(3)])
}

fn message(dbc: &Dbc, message: &Message) -> u64 {
    assert!(dbc.by_id(message.can_id).is_some(), "{}", message.name);
    let decoded = FRAMES.map(|data| message.decode(data).len().min(4));
    let signals: Vec<u64> = message.signals.iter().map(signal).collect();
    for signal in &message.signals {
        for value in ["1", "-0.5", "off", "18446744073709551615"] {
            let text = format!("{}.{}={value}", message.name, signal.name);
            if let Ok(set) = dbc.parse_set(&text) {
                let mut twice = set.clone();
                twice.merge(&set).expect("a set agrees with itself");
                assert_eq!(twice, set, "{text}");
                inside(&set.bits, &set.mask, &text);
            }
        }
    }
    outcome((decoded, &signals[..signals.len().min(4)]))
}

/// No bit is outside the mask.
fn inside(bits: &[u8; MAX_DATA], mask: &[u8; MAX_DATA], text: &str) {
    let mut pairs = bits.iter().zip(mask);
    assert!(pairs.all(|(bits, mask)| bits & !mask == 0), "{text}");
}

fn signal(signal: &Signal) -> u64 {
    let mask = signal.mask();
    let count: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let usable = signal.flaw().is_none();
    let bits = if usable { u32::from(signal.bits) } else { 0 };
    assert_eq!(count, bits, "{signal:?}");
    let exact = signal.factor == 1.0 && signal.offset == 0.0 && bits <= 53;
    let whole = matches!(signal.encoding, Encoding::Unsigned | Encoding::Signed);
    for data in FRAMES {
        assert_eq!(signal.raw(data).is_some(), signal.decode(data).is_some());
        let Some(value) = signal.decode(data) else {
            continue;
        };
        let named = signal.text(value).is_some();
        assert!(!named || !signal.texts.is_empty());
        match signal.encode(value) {
            Ok(encoded) => {
                inside(&encoded, &mask, &signal.name);
                if exact && whole {
                    assert_eq!(signal.decode(&encoded), Some(value), "{signal:?}");
                }
            }
            Err(error) => assert!(!(exact && whole), "{error}: {signal:?}"),
        }
    }
    for value in [0.0, -1.0, 1e300, f64::NAN, f64::INFINITY] {
        if let Ok(encoded) = signal.encode(value) {
            inside(&encoded, &mask, &signal.name);
        }
    }
    outcome((
        signal.byte_order,
        signal.encoding,
        signal.multiplexing,
        usable,
        signal.texts.len().min(2),
    ))
}
