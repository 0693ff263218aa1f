//! Rules of a case, and their text: the options of `cangw -A`, and the line of `cangw -L`.

use std::fmt::Write as _;

/// `CAN_INV_FILTER`: in the identifier of a filter, inverts it.
pub const INVERTED: u32 = 0x2000_0000;

/// `CGW_MOD_ID`
pub const ID: u8 = 1;
/// `CGW_MOD_DLC`, `CGW_MOD_LEN`
pub const LEN: u8 = 2;
/// `CGW_MOD_DATA`
pub const DATA: u8 = 4;
/// `CGW_MOD_FLAGS`
pub const FLAGS: u8 = 8;

/// Options of `cangw -A`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `-s`
    pub source: &'static str,
    /// `-d`
    pub target: &'static str,
    /// `-X`
    pub fd: bool,
    /// `-e`
    pub echo: bool,
    /// `-t`
    pub timestamp: bool,
    /// `-i`
    pub iif_tx_ok: bool,
    /// `-l`, 0 when it is not given
    pub limit: u8,
    /// `-f`, its identifier with [`INVERTED`], and its mask
    pub filter: Option<(u32, u32)>,
    /// `-m` or, with `-X`, `-M`, in the order given
    pub modifications: Vec<Modification>,
    /// `-u`, 0 when it is not given
    pub uid: u32,
    /// `-c`
    pub crc8: Option<Crc8>,
    /// `-p`
    pub profile: Option<Profile>,
    /// `-x`
    pub xor: Option<Span>,
}

/// `-m` or `-M`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modification {
    /// What is done.
    pub operation: Operation,
    /// To what: [`ID`], [`LEN`], [`DATA`], [`FLAGS`].
    pub elements: u8,
    /// Operand for the identifier.
    pub id: u32,
    /// Operand for the length.
    pub len: u8,
    /// Operand for the flags of an FD frame.
    pub flags: u8,
    /// Operand for the data, of which classic frames use 8 bytes.
    pub data: [u8; 64],
}

/// What a modification does, in the order in which can-gw does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    And,
    Or,
    Xor,
    Set,
}

impl Operation {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::And, Self::Or, Self::Xor, Self::Set];

    const fn name(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Xor => "XOR",
            Self::Set => "SET",
        }
    }
}

/// What a checksum covers and where it goes; indices below 0 count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: i8,
    pub to: i8,
    pub result: i8,
    /// The value to begin with.
    pub init: u8,
}

/// `-c`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crc8 {
    pub span: Span,
    /// Exclusive or at the end.
    pub final_xor: u8,
    pub table: Box<[u8; 256]>,
}

/// `-p`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `1:`, one more byte
    Byte(u8),
    /// `2:`, one more byte of 16
    Table([u8; 16]),
    /// `3:`, the identifier
    Identifier,
}

impl Rule {
    /// A rule without options.
    #[must_use]
    pub const fn new(source: &'static str, target: &'static str) -> Self {
        Self {
            source,
            target,
            fd: false,
            echo: false,
            timestamp: false,
            iif_tx_ok: false,
            limit: 0,
            filter: None,
            modifications: Vec::new(),
            uid: 0,
            crc8: None,
            profile: None,
            xor: None,
        }
    }

    /// The options for `cangw -A` and `cangw -D`.
    #[must_use]
    pub fn options(&self) -> String {
        self.text().trim_end().to_owned()
    }

    /// The rule as can-gw keeps it: of several modifications with one operation the last, and nothing that needs a
    /// modification without one.
    #[must_use]
    pub fn kept(&self) -> Self {
        let mut kept = self.clone();
        kept.modifications.clear();
        for operation in Operation::ALL {
            // can-utils' cangw does not look at a fifth.
            let mut given = self.modifications.iter().take(4).rev();
            kept.modifications
                .extend(given.find(|m| m.operation == operation).cloned());
        }
        if kept.modifications.is_empty() {
            kept.uid = 0;
            kept.crc8 = None;
            kept.xor = None;
        }
        if kept.crc8.is_none() {
            kept.profile = None;
        }
        kept.filter = self.filter.filter(|filter| *filter != (0, 0));
        kept
    }

    /// The line of `cangw -L` for a rule that is [kept](Self::kept): handled, dropped, deleted.
    #[must_use]
    pub fn listed(&self, counters: [u64; 3]) -> String {
        let [handled, dropped, deleted] = counters;
        let rule = self.text();
        format!("cangw -A {rule}# {handled} handled {dropped} dropped {deleted} deleted\n")
    }

    /// Options, each followed by a space, in the order of `cangw -L`.
    fn text(&self) -> String {
        let mut text = format!("-s {} -d {} ", self.source, self.target);
        for (is_so, option) in [
            (self.fd, "-X "),
            (self.echo, "-e "),
            (self.timestamp, "-t "),
            (self.iif_tx_ok, "-i "),
        ] {
            text += if is_so { option } else { "" };
        }
        // Writing to a String cannot fail.
        let mut write = |arguments: std::fmt::Arguments<'_>| {
            let _ = text.write_fmt(arguments);
        };
        if self.limit != 0 {
            write(format_args!("-l {} ", self.limit));
        }
        for modification in &self.modifications {
            let letter = if self.fd { 'M' } else { 'm' };
            write(format_args!("-{letter} {} ", modification.text(self.fd)));
        }
        if self.uid != 0 {
            write(format_args!("-u {:X} ", self.uid));
        }
        for (letter, value) in [
            ('c', self.crc8_text()),
            ('p', self.profile_text()),
            ('x', self.xor.map(|span| span.text())),
            ('f', self.filter_text()),
        ] {
            if let Some(value) = value {
                write(format_args!("-{letter} {value} "));
            }
        }
        text
    }

    /// The value of `-c`.
    #[must_use]
    pub fn crc8_text(&self) -> Option<String> {
        let crc8 = self.crc8.as_ref()?;
        let table = hex(&crc8.table[..]);
        Some(format!(
            "{}:{:02X}:{table}",
            crc8.span.text(),
            crc8.final_xor
        ))
    }

    /// The value of `-p`.
    #[must_use]
    pub fn profile_text(&self) -> Option<String> {
        self.profile.as_ref().map(|profile| match profile {
            Profile::Byte(byte) => format!("1:{byte:02X}"),
            Profile::Table(table) => format!("2:{}", hex(table)),
            Profile::Identifier => "3:".to_owned(),
        })
    }

    /// The value of `-f`.
    #[must_use]
    pub fn filter_text(&self) -> Option<String> {
        let (id, mask) = self.filter?;
        let sign = if id & INVERTED == 0 { ':' } else { '~' };
        Some(format!("{:03X}{sign}{mask:X}", id & !INVERTED))
    }
}

impl Modification {
    /// The value of `-m` or `-M`.
    #[must_use]
    pub fn text(&self, fd: bool) -> String {
        let mut text = format!("{}:", self.operation.name());
        for (element, letter) in [(ID, 'I'), (FLAGS, 'F'), (LEN, 'L'), (DATA, 'D')] {
            if self.elements & element != 0 {
                text.push(letter);
            }
        }
        text += &format!(":{:03X}.", self.id);
        if fd {
            text += &format!("{:X}.", self.flags);
        }
        let data = &self.data[..if fd { 64 } else { 8 }];
        text + &format!("{:X}.{}", self.len, hex(data))
    }
}

impl Span {
    /// The value of `-x`, and the first part of that of `-c`.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "{}:{}:{}:{:02X}",
            self.from, self.to, self.result, self.init
        )
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
