//! From the notation to the frame.

use std::str::FromStr;

use cangw_common::frame::{
    EFF_FLAG, EFF_MASK, ERR_FLAG, FrameType, RTR_FLAG, SFF_MASK, XL_FLAG, XL_MAX_DATA,
};

use super::Frame;

/// Characters of a bad text that its error repeats.
const SHOWN: usize = 60;

/// Text that is no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Bad frame '{}', character {at}: {problem}", shortened(.text))]
pub struct FrameTextError {
    /// The text.
    pub text: String,
    /// The character where it goes wrong, from 1; one more than there are where something is missing at the end.
    pub at: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with the text of a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Something else, or nothing, stands there.
    #[error("{}, but expected {wanted}", instead(.found))]
    Expected {
        /// What would be right.
        wanted: &'static str,
        /// What is there.
        found: Option<char>,
    },
    /// No identifier has so many digits.
    #[error(
        "the identifier has {0} digits, but 3 make a standard identifier, 8 an extended one, and 5 the VCID and priority of a CAN XL frame"
    )]
    Digits(usize),
    /// The identifier is too large.
    #[error(
        "the identifier '{0:X}' is too large: with 3 digits it is at most 7FF, with 8 at most 1FFFFFFF, or 3FFFFFFF for error frames"
    )]
    Identifier(u32),
    /// The priority is too large.
    #[error("the priority '{0:X}' of the CAN XL frame is too large: it is at most 7FF")]
    Priority(u32),
    /// The flags have no XLF.
    #[error("CAN XL flags need the mark 80: write '{with:02X}' instead of '{0:02X}' here", with = .0 | XL_FLAG)]
    XlFlag(u8),
    /// There are too many data.
    #[error(
        "there are more than {0} data bytes: classic frames have up to 8, CAN FD frames (123##0...) up to 64, CAN XL frames up to 2048"
    )]
    Long(usize),
    /// A CAN XL frame has at least a byte.
    #[error("a CAN XL frame has 1 to 2048 data bytes: add one")]
    Empty,
    /// Only classic frames of 8 bytes have a raw data length code.
    #[error("a data length code after _ needs 8 data bytes, but there are {0}: remove it")]
    RawDlc(usize),
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn instead(character: &Option<char>) -> String {
    match character {
        Some(character) => format!("found '{}'", character.escape_debug()),
        None => "the text ends".to_owned(),
    }
}

/// Reads from left to right, so that only ASCII lies behind it.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Result<T> = std::result::Result<T, FrameTextError>;

impl Reader<'_> {
    fn fail<T>(&self, at: usize, problem: Problem) -> Result<T> {
        Err(FrameTextError {
            text: self.text.to_owned(),
            at: at + 1,
            problem,
        })
    }

    fn unexpected<T>(&self, wanted: &'static str) -> Result<T> {
        let found = self
            .text
            .get(self.at..)
            .and_then(|rest| rest.chars().next());
        self.fail(self.at, Problem::Expected { wanted, found })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, wanted: &[u8]) -> bool {
        let found = self.peek().is_some_and(|byte| wanted.contains(&byte));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, wanted: &'static str) -> Result<()> {
        if self.take(&[byte]) {
            Ok(())
        } else {
            self.unexpected(wanted)
        }
    }

    fn digit(&mut self) -> Option<u32> {
        let value = char::from(self.peek()?).to_digit(16)?;
        self.at += 1;
        Some(value)
    }

    fn number(&mut self, digits: usize, wanted: &'static str) -> Result<u32> {
        let mut value = 0;
        for _ in 0..digits {
            match self.digit() {
                Some(digit) => value = value << 4 | digit,
                None => return self.unexpected(wanted),
            }
        }
        Ok(value)
    }

    fn byte(&mut self, wanted: &'static str) -> Result<u8> {
        Ok(self.number(2, wanted)? as u8)
    }

    /// Data bytes up to something else, each with a dot before it or not.
    fn data(&mut self, most: usize) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        loop {
            let dot = self.take(b".");
            if !dot && !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                return Ok(data);
            }
            if data.len() == most {
                return self.fail(self.at, Problem::Long(most));
            }
            data.push(self.byte("a data byte of two hexadecimal digits")?);
        }
    }

    fn end(&self, wanted: &'static str) -> Result<()> {
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.unexpected(wanted)
        }
    }

    fn frame(&mut self) -> Result<Frame> {
        let (mut id, mut digits) = (0_u32, 0);
        while let Some(digit) = self.digit() {
            id = id << 4 | digit;
            digits += 1;
        }
        self.expect(b'#', "hexadecimal digits of an identifier, then #")?;
        let id = match digits {
            3 if id <= SFF_MASK => id,
            8 if id <= EFF_MASK => id | EFF_FLAG,
            8 if id <= EFF_MASK | ERR_FLAG => id,
            3 | 8 => return self.fail(0, Problem::Identifier(id)),
            5 => return self.xl(id),
            _ => return self.fail(0, Problem::Digits(digits)),
        };
        if self.take(b"#") {
            self.fd(id)
        } else {
            self.classic(id)
        }
    }

    fn classic(&mut self, id: u32) -> Result<Frame> {
        let remote = self.take(b"Rr");
        let (id, len, data, wanted) = if remote {
            let len = match self.peek() {
                Some(digit @ b'0'..=b'8') => digit - b'0',
                _ => 0,
            };
            let named = self.take(b"012345678");
            let wanted = if named {
                "the end of the text"
            } else {
                "a length of 0 to 8 bytes, or the end of the text"
            };
            (id | RTR_FLAG, len, Vec::new(), wanted)
        } else {
            let data = self.data(8)?;
            (
                id,
                data.len() as u8,
                data,
                "a data byte of two hexadecimal digits, or the end of the text",
            )
        };
        let mut len8_dlc = 0;
        if self.take(b"_") {
            if len != 8 {
                return self.fail(self.at - 1, Problem::RawDlc(usize::from(len)));
            }
            len8_dlc = match self.digit() {
                Some(dlc @ 9..=15) => dlc as u8,
                found => {
                    self.at -= usize::from(found.is_some());
                    return self.unexpected("a data length code of 9 to F");
                }
            };
        }
        self.end(if len8_dlc == 0 {
            wanted
        } else {
            "the end of the text"
        })?;
        Ok(Frame::build(
            FrameType::Classic,
            id,
            len,
            0,
            len8_dlc,
            &data,
        ))
    }

    fn fd(&mut self, id: u32) -> Result<Frame> {
        let flags = self.number(1, "a hexadecimal digit of CAN FD flags")? as u8;
        let data = self.data(64)?;
        self.end("a data byte of two hexadecimal digits, or the end of the text")?;
        let len = data.len() as u8;
        Ok(Frame::build(FrameType::Fd, id, len, flags, 0, &data))
    }

    fn xl(&mut self, vcid_and_priority: u32) -> Result<Frame> {
        let (vcid, priority) = (vcid_and_priority >> 12, vcid_and_priority & 0xFFF);
        if priority > SFF_MASK {
            return self.fail(2, Problem::Priority(priority));
        }
        let start = self.at;
        let flags = self.byte("two hexadecimal digits of CAN XL flags")?;
        if flags & XL_FLAG == 0 {
            return self.fail(start, Problem::XlFlag(flags));
        }
        self.expect(b':', "a colon between flags and SDT")?;
        let sdt = self.byte("two hexadecimal digits of the SDT")?;
        self.expect(b':', "a colon between SDT and AF")?;
        let af = self.number(8, "eight hexadecimal digits of the AF")?;
        self.expect(b'#', "# between the AF and the data")?;
        let data = self.data(XL_MAX_DATA as usize)?;
        self.end("a data byte of two hexadecimal digits, or the end of the text")?;
        if data.is_empty() {
            return self.fail(self.at, Problem::Empty);
        }
        Ok(Frame::build_xl(vcid, priority, flags, sdt, af, &data))
    }
}

impl FromStr for Frame {
    type Err = FrameTextError;

    fn from_str(text: &str) -> Result<Self> {
        Reader { text, at: 0 }.frame()
    }
}
