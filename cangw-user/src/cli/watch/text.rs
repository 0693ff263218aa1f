//! Pieces of text that can be marked, cut, and written to a terminal.

use std::fmt::Write as _;

/// What stands where text was cut.
const CUT: char = '…';

/// Text that is marked or not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    text: String,
    marked: bool,
}

/// A line without its end. Nothing in it has an effect on a terminal, whatever was put in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line(Vec<Span>);

impl Line {
    pub(super) fn new(text: &str) -> Self {
        let mut line = Self::default();
        line.push(text, false);
        line
    }

    pub(super) fn push(&mut self, text: &str, marked: bool) {
        if !text.is_empty() {
            let text = printable(text);
            self.0.push(Span { text, marked });
        }
    }

    /// Adds spaces up to a width.
    pub(super) fn pad(&mut self, width: usize) {
        let missing = width.saturating_sub(self.width());
        self.push(&" ".repeat(missing), false);
    }

    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Columns on a terminal, if each character takes one.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|span| span.text.chars().count()).sum()
    }

    /// The line with at most `width` characters.
    pub(super) fn cut(mut self, width: usize) -> Self {
        let mut room = width;
        if self.width() <= room {
            return self;
        }
        for span in &mut self.0 {
            let len = span.text.chars().count();
            // The last place is needed for the sign that there was more.
            if len < room {
                room -= len;
            } else {
                span.text = shorten(&span.text, room, true);
                room = 0;
            }
        }
        self.0.retain(|span| !span.text.is_empty());
        self
    }

    /// The text without marks.
    pub(super) fn plain(&self) -> String {
        self.0.iter().map(|span| span.text.as_str()).collect()
    }
}

/// At most `width` characters of a text. With `more` the text goes on behind its end.
pub(super) fn shorten(text: &str, width: usize, more: bool) -> String {
    if text.chars().count() + usize::from(more) <= width {
        return if more {
            format!("{text}{CUT}")
        } else {
            text.to_owned()
        };
    }
    let start = text.chars().take(width.saturating_sub(1));
    start.chain((width > 0).then_some(CUT)).collect()
}

/// How a mark looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mark {
    /// Colours of letters and ground are exchanged.
    Reverse,
    /// For those who want no colours.
    Underline,
}

impl Mark {
    /// The mark for the value of `NO_COLOR` (<https://no-color.org>), which counts when it is not empty.
    pub(super) fn of(no_color: Option<&std::ffi::OsStr>) -> Self {
        match no_color {
            Some(value) if !value.is_empty() => Self::Underline,
            _ => Self::Reverse,
        }
    }
}

/// Control sequences that replace what a terminal shows by these lines. It has at least as many rows.
pub(super) fn draw(lines: &[Line], mark: Mark) -> String {
    let mark = match mark {
        Mark::Reverse => "\x1b[7m",
        Mark::Underline => "\x1b[4m",
    };
    let mut text = String::from("\x1b[H");
    for (i, line) in lines.iter().enumerate() {
        // Rows are erased before they are written: behind a full row the cursor is on its last character. The last row erases those
        // below, and has no end, at which the terminal would scroll.
        let last = i + 1 == lines.len();
        text.push_str(if last { "\x1b[J" } else { "\x1b[K" });
        for span in &line.0 {
            let _ = match span.marked {
                true => write!(text, "{mark}{}\x1b[0m", span.text),
                false => write!(text, "{}", span.text),
            };
        }
        if !last {
            text.push_str("\r\n");
        }
    }
    text
}

/// The text with a sign for each character that is none to look at: DBC files and names of interfaces can have any.
pub(in crate::cli) fn printable(text: &str) -> String {
    let replace = |c| {
        if is_visible(c) {
            c
        } else {
            char::REPLACEMENT_CHARACTER
        }
    };
    text.chars().map(replace).collect()
}

/// Whether a character only shows itself: neither controls a terminal, nor hides or turns around what is beside it.
pub(super) fn is_visible(c: char) -> bool {
    let hidden = matches!(c, '\u{AD}' | '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}');
    !c.is_control() && !hidden
}
