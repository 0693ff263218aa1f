//! The table of identifiers, as lines.

use cangw_common::frame::FrameType;

use super::decoded::{Decoded, Value};
use super::history::Marks;
use super::text::{Line, shorten};
use crate::gateway::WatchedId;

/// Longer names of messages are cut where the width is limited, in characters.
const NAME: usize = 24;
/// Spaces between columns.
const GAP: usize = 2;
/// Spaces before signals.
const INDENT: usize = 4;
/// Widths of signals side by side are multiples of this, so that a digit more rarely moves the others.
const STEP: usize = 8;

/// A column before the data.
struct Column {
    title: &'static str,
    /// Its width if nothing in it is wider: what is usual, so that the columns behind do not move.
    least: usize,
    right: bool,
}

/// Number of the column with names, which is there only with a DBC file.
const NAMES: usize = 1;

const COLUMNS: [Column; 8] = {
    const fn column(title: &'static str, least: usize, right: bool) -> Column {
        Column {
            title,
            least,
            right,
        }
    }
    [
        column("ID", 3, false),
        column("MESSAGE", 7, false),
        column("COUNT", 6, true),
        column("AGE ms", 6, true),
        column("MIN ms", 6, true),
        column("MEAN ms", 7, true),
        column("MAX ms", 6, true),
        column("LEN", 3, true),
    ]
};

/// The identifiers with their columns as wide as needed.
pub(super) struct Table {
    header: Line,
    /// The lines of each identifier.
    rows: Vec<Vec<Line>>,
}

impl Table {
    /// Arranges identifiers, and what is to be marked of each; `names` if there is a DBC file. With `width`, data and signals go on in the
    /// next line where they do not fit; without, data take one line, and each signal another.
    pub(super) fn new(
        rows: &[Decoded<'_>],
        marks: &[Marks],
        names: bool,
        width: Option<usize>,
    ) -> Self {
        let texts: Vec<_> = rows.iter().map(|row| cells(row, width.is_some())).collect();
        let titles = COLUMNS.map(|column| column.title.to_owned());
        let widths: [usize; COLUMNS.len()] = std::array::from_fn(|i| {
            let all = texts.iter().chain([&titles]);
            let longest = all.map(|cells| cells[i].chars().count()).max();
            longest.unwrap_or(0).max(COLUMNS[i].least)
        });
        let aligned = |cells: &[String; COLUMNS.len()]| {
            let mut text = String::new();
            for (i, (cell, column)) in cells.iter().zip(&COLUMNS).enumerate() {
                let width = widths[i];
                match column.right {
                    _ if i == NAMES && !names => continue,
                    true => text += &format!("{cell:>width$}"),
                    false => text += &format!("{cell:<width$}"),
                }
                text += &" ".repeat(GAP);
            }
            Line::new(&text)
        };
        let mut header = aligned(&titles);
        let data_at = header.width();
        header.push("DATA", false);
        let room = width.map(|width| width.saturating_sub(data_at));
        let rows = rows.iter().zip(marks).zip(&texts);
        let rows = rows.map(|((row, marks), cells)| {
            let mut lines = data(row.watched, &marks.bytes, aligned(cells), room);
            lines.extend(signals(&row.signals, &marks.signals, width));
            lines
        });
        Self {
            header,
            rows: rows.collect(),
        }
    }

    /// All lines.
    pub(super) fn lines(self) -> impl Iterator<Item = Line> {
        std::iter::once(self.header).chain(self.rows.into_iter().flatten())
    }

    /// As many lines as fit on a terminal, under a title and none longer than its width. The last one says how many identifiers do
    /// not fit, which includes one whose first lines do.
    pub(super) fn fit(self, title: &str, width: usize, height: usize) -> Vec<Line> {
        let mut lines = vec![Line::new(title), self.header];
        let total = self.rows.len();
        let needed: usize = self.rows.iter().map(Vec::len).sum();
        let all = lines.len() + needed <= height;
        let end = if all {
            height
        } else {
            height.saturating_sub(1)
        };
        let mut whole = 0;
        for row in self.rows {
            let room = end.saturating_sub(lines.len());
            whole += usize::from(row.len() <= room);
            lines.extend(row.into_iter().take(room));
        }
        if !all {
            lines.truncate(end);
            let hidden = total - whole;
            lines.push(Line::new(&format!(
                "{hidden} of {total} identifiers do not fit"
            )));
        }
        lines.truncate(height);
        lines.into_iter().map(|line| line.cut(width)).collect()
    }
}

/// The columns before the data.
fn cells(row: &Decoded<'_>, limited: bool) -> [String; COLUMNS.len()] {
    let watched = row.watched;
    let name = row.message.unwrap_or_default();
    let time = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), milliseconds);
    [
        identifier(watched),
        shorten(name, if limited { NAME } else { usize::MAX }, false),
        watched.count.to_string(),
        time(Some(watched.age)),
        time(watched.shortest),
        time(watched.mean),
        time(watched.longest),
        watched.len.to_string(),
    ]
}

/// 3 or 8 digits, as in the notation of can-utils, and what is not a classic data frame.
fn identifier(watched: &WatchedId) -> String {
    let width = if watched.extended || watched.error {
        8
    } else {
        3
    };
    let mut text = format!("{:0width$X}", watched.id);
    for (is, suffix) in [
        (watched.kind == FrameType::Fd, " fd"),
        (watched.kind == FrameType::Xl, " xl"),
        (watched.remote, " R"),
        (watched.error, " ERR"),
    ] {
        if is {
            text += suffix;
        }
    }
    text
}

/// Four digits, at most three of them behind the point: below a microsecond it is noise.
fn milliseconds(seconds: f64) -> String {
    let value = seconds * 1e3;
    let decimals = match value {
        ..10.0 => 3,
        ..100.0 => 2,
        ..1000.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// The line of an identifier up to the data, completed by those, and further lines with the data for which there is no room.
fn data(watched: &WatchedId, marks: &[bool], start: Line, room: Option<usize>) -> Vec<Line> {
    let indent = start.width();
    let fitting = room.map_or(usize::MAX, |room| (room + 1) / 3);
    // As many as one can count at a glance; where nearly nothing fits, the line is cut.
    let in_line = match fitting {
        usize::MAX | ..4 => usize::MAX,
        _ => 1 << fitting.ilog2(),
    };
    let mut lines = vec![start];
    let marks = marks.iter().copied().chain(std::iter::repeat(false));
    for (i, (byte, marked)) in watched.data.iter().zip(marks).enumerate() {
        if i > 0 && i % in_line == 0 {
            lines.push(Line::new(&" ".repeat(indent)));
        }
        let line = &mut lines[i / in_line];
        if i % in_line != 0 {
            line.push(" ", false);
        }
        line.push(&format!("{byte:02X}"), marked);
    }
    if !watched.remote
        && watched.data.len() < usize::from(watched.len)
        && let Some(last) = lines.last_mut()
    {
        last.push(" …", false);
    }
    lines
}

/// The signals under an identifier: side by side in columns as wide as the longest, or below each other.
fn signals(values: &[Value<'_>], marks: &[bool], width: Option<usize>) -> Vec<Line> {
    let marks = marks.iter().copied().chain(std::iter::repeat(false));
    let cells: Vec<Line> = values.iter().zip(marks).map(signal).collect();
    let longest = cells.iter().map(Line::width).max().unwrap_or(0);
    let column = (longest + GAP).next_multiple_of(STEP);
    let columns = width.map_or(1, |width| (width.saturating_sub(INDENT) / column).max(1));
    let cells_of = |cells: &[Line]| {
        let mut line = Line::default();
        for (i, cell) in cells.iter().enumerate() {
            line.pad(INDENT + i * column);
            line.append(cell.clone());
        }
        line
    };
    cells.chunks(columns).map(cells_of).collect()
}

/// A signal as plain text.
pub(in crate::cli) fn signal_text(value: &Value<'_>) -> String {
    signal((value, false)).plain()
}

/// Name, value, unit, and the name of the value.
fn signal((value, marked): (&Value<'_>, bool)) -> Line {
    let mut line = Line::new(value.name);
    line.push(" ", false);
    let mut text = number(value.value);
    if !value.unit.is_empty() {
        text += &format!(" {}", value.unit);
    }
    if let Some(name) = value.text {
        text += &format!(" ({name})");
    }
    line.push(&text, marked);
    line
}

/// Whole numbers are complete, others have ten digits: factors such as 0.01 make values such as 0.30000000000000004.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let whole = value.fract() == 0.0;
    let rounded = if whole {
        Ok(value)
    } else {
        format!("{value:.9e}").parse::<f64>()
    };
    let rounded = rounded.unwrap_or(value);
    match rounded.abs() {
        // -0 is 0.
        0.0 => "0".to_owned(),
        1e-6..1e21 => rounded.to_string(),
        _ => format!("{rounded:e}"),
    }
}
