//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rates::Rates;
use super::view::{Order, Pane, table};

/// What a person has chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    pub pane: Pane,
    pub order: Order,
    /// Rows have this text.
    pub filter: String,
    /// Whether keys go to the filter.
    pub typing: bool,
    /// The row that is marked.
    pub row: usize,
    /// The rule that is open, by its place.
    pub open: Option<usize>,
    /// Nothing new is shown.
    pub paused: bool,
}

/// What to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    GoOn,
    End,
}

impl Choice {
    /// Does what a key asks for.
    pub fn press(&mut self, key: KeyEvent, rates: &Rates) -> Then {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Then::End;
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(c) => self.filter.push(c),
                _ => {}
            }
            self.row = 0;
            return Then::GoOn;
        }
        let rows = table(self.pane, rates, &self.order, &self.filter).rows;
        let last = rows.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') => return Then::End,
            KeyCode::Esc if self.open.is_some() => self.open = None,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Pane::ALL.len() - 1),
            KeyCode::Char(c @ '1'..='5') => self.show(Pane::ALL[c as usize - '1' as usize]),
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Up | KeyCode::Char('k') => self.row = self.row.min(last).saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.row = (self.row + 1).min(last),
            KeyCode::PageUp => self.row = self.row.saturating_sub(10),
            KeyCode::PageDown => self.row = (self.row + 10).min(last),
            KeyCode::Enter if self.pane == Pane::Rules => {
                self.open = rows.get(self.row.min(last)).map(|row| row.index);
            }
            _ => {}
        }
        Then::GoOn
    }

    fn turn(&mut self, by: usize) {
        let at = Pane::ALL.iter().position(|pane| *pane == self.pane);
        self.show(Pane::ALL[(at.unwrap_or(0) + by) % Pane::ALL.len()]);
    }

    fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.row = 0;
        self.open = None;
    }
}
