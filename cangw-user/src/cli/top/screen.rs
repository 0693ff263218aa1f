//! The screen: a line of tables, the chosen one, and a line of keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, TableState};

use super::keys::Choice;
use super::rates::Rates;
use super::view::{self, Pane};

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, rates: &Rates, choice: &Choice) {
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [head, body, foot] = areas.areas(frame.area());
    frame.render_widget(head_line(rates, choice), head);
    match choice.open.and_then(|at| rates.rules.get(at)) {
        Some(rule) => {
            let mut lines = vec![Line::from(rule.rule.as_str()).bold()];
            let topology = match rule.topology.as_str() {
                "" => "added by itself".to_owned(),
                name => format!("route of the topology {name}"),
            };
            lines.push(Line::from(topology));
            if let Some(name) = &rule.waiting_for {
                lines.push(Line::from(format!("waits for {name}")).red());
            }
            lines.push(Line::from(format!("{:>12.1} frames a second", rule.rate)));
            lines.extend(rule.counters.iter().map(|(name, frames)| {
                let line = Line::from(format!("{frames:>12} {name}"));
                if *frames != 0 && name.starts_with("dropped") {
                    line.red()
                } else {
                    line
                }
            }));
            frame.render_widget(Paragraph::new(lines), body);
        }
        None => table(frame, body, rates, choice),
    }
    frame.render_widget(foot_line(choice), foot);
}

fn head_line(rates: &Rates, choice: &Choice) -> Line<'static> {
    let mut spans = vec![Span::from("cangw top  ").bold()];
    for (number, pane) in (1..).zip(Pane::ALL) {
        let rows = match pane {
            Pane::Buses => rates.buses.len(),
            Pane::Interfaces => rates.interfaces.len(),
            Pane::Rules => rates.rules.len(),
            Pane::Ids => rates.ids.len(),
            Pane::Ports => rates.ports.len(),
        };
        let text = format!(" {number} {} ({rows}) ", pane.title());
        let style = if pane == choice.pane {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        spans.push(Span::styled(text, style));
    }
    if choice.paused {
        spans.push(Span::from("  paused").fg(Color::Yellow));
    }
    Line::from(spans)
}

fn foot_line(choice: &Choice) -> Line<'static> {
    if choice.typing {
        return Line::from(format!("/{}_", choice.filter));
    }
    let filter = match choice.filter.as_str() {
        "" => String::new(),
        text => format!("  only {text:?} (Esc: all)"),
    };
    let open = if choice.pane == Pane::Rules {
        "Enter open  "
    } else {
        ""
    };
    Line::from(format!(
        "Tab 1-5 table  s sort: {}  / filter  {open}space pause  q end{filter}",
        choice.order.title()
    ))
    .dim()
}

fn table(frame: &mut Frame<'_>, area: Rect, rates: &Rates, choice: &Choice) {
    let table = view::table(choice.pane, rates, &choice.order, &choice.filter);
    let widths = (0..table.head.len()).map(|column| {
        let cells = table
            .rows
            .iter()
            .map(|row| row.cells[column].chars().count());
        let widest = cells.chain([table.head[column].len()]).max().unwrap_or(0);
        Constraint::Length(u16::try_from(widest).unwrap_or(u16::MAX))
    });
    let widths: Vec<Constraint> = widths.collect();
    let rows = table.rows.iter().map(|row| {
        let style = if row.alarm {
            Style::new().fg(Color::Red)
        } else {
            Style::new()
        };
        Row::new(row.cells.clone()).style(style)
    });
    let widget = Table::new(rows, widths)
        .header(Row::new(table.head.to_vec()).underlined())
        .column_spacing(2)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let last = table.rows.len().saturating_sub(1);
    let marked = (!table.rows.is_empty()).then_some(choice.row.min(last));
    let mut state = TableState::new().with_selected(marked);
    frame.render_stateful_widget(widget, area, &mut state);
}
