//! The terminal as long as the table is shown.

use std::io::{self, Write as _};

use super::text::{Line, Mark, draw};
use crate::kernel::terminal::{self, Keys};

/// Alternate screen, no cursor, and no new row for what is longer than a row: characters that take two columns count as one.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// The contrary, in the other order.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// What a terminal is taken for that does not tell its size.
const USUAL: (usize, usize) = (80, 24);

/// Shows the table instead of what was on the terminal, until it is dropped.
pub(super) struct Screen {
    keys: Option<Keys>,
    mark: Mark,
}

impl Screen {
    /// # Errors
    /// When the terminal cannot be written to.
    pub(super) fn enter() -> io::Result<Self> {
        // In the background, the process stops here, before anything is drawn.
        let keys = Keys::take();
        let mark = Mark::of(std::env::var_os("NO_COLOR").as_deref());
        // From here on, whatever fails, the terminal is restored.
        let screen = Self { keys, mark };
        write(ENTER)?;
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size() -> (usize, usize) {
        terminal::size().unwrap_or(USUAL)
    }

    /// # Errors
    /// When the terminal cannot be written to.
    pub(super) fn show(&self, lines: &[Line]) -> io::Result<()> {
        write(&draw(lines, self.mark))
    }

    /// Whether `q` was pressed.
    pub(super) fn wants_to_end(&self) -> bool {
        let keys = self.keys.as_ref().map(Keys::pressed).unwrap_or_default();
        keys.iter().any(|key| matches!(key, b'q' | b'Q'))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody to tell when the terminal is gone.
        let _ = write(LEAVE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
