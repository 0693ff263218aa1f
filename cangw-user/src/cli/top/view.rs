//! The tables: which rows, in which order.

use std::cmp::Ordering;

use super::rates::Rates;

/// A table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pane {
    Buses,
    Interfaces,
    #[default]
    Rules,
    Ids,
    Ports,
}

impl Pane {
    pub const ALL: [Self; 5] = [
        Self::Buses,
        Self::Interfaces,
        Self::Rules,
        Self::Ids,
        Self::Ports,
    ];

    pub const fn title(self) -> &'static str {
        match self {
            Self::Buses => "buses",
            Self::Interfaces => "interfaces",
            Self::Rules => "rules",
            Self::Ids => "ids",
            Self::Ports => "ports",
        }
    }
}

/// The order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As the gateway has them.
    #[default]
    Given,
    /// By name.
    Name,
    /// Most frames a second first.
    Rate,
    /// Most lost frames first.
    Dropped,
}

impl Order {
    pub const ALL: [Self; 4] = [Self::Given, Self::Name, Self::Rate, Self::Dropped];

    pub const fn title(self) -> &'static str {
        match self {
            Self::Given => "as it is",
            Self::Name => "name",
            Self::Rate => "rate",
            Self::Dropped => "drops",
        }
    }

    /// The next one.
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|order| *order == self);
        Self::ALL[(at.unwrap_or(0) + 1) % Self::ALL.len()]
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub cells: Vec<String>,
    /// Something is lost here, or does not work.
    pub alarm: bool,
    /// Its place in what the gateway said.
    pub index: usize,
    rate: f64,
    dropped: f64,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub head: &'static [&'static str],
    pub rows: Vec<Row>,
}

fn per_second(rate: f64) -> String {
    format!("{rate:.1}/s")
}

/// The rows of a table that have a text in one of their cells.
pub fn table(pane: Pane, rates: &Rates, order: &Order, filter: &str) -> Table {
    let (head, mut rows): (&'static [&'static str], Vec<Row>) = match pane {
        Pane::Buses => (
            &["bus", "topology", "ecus", "rate", "lost"],
            rates
                .buses
                .iter()
                .map(|bus| Row {
                    cells: vec![
                        bus.bus.clone(),
                        bus.topology.clone(),
                        bus.ecus.to_string(),
                        per_second(bus.rate),
                        bus.lost.to_string(),
                    ],
                    alarm: bus.lost_rate > 0.0,
                    index: 0,
                    rate: bus.rate,
                    dropped: bus.lost_rate,
                })
                .collect(),
        ),
        Pane::Interfaces => (
            &["interface", "state", "rx", "tx", "load", "dropped"],
            rates
                .interfaces
                .iter()
                .map(|i| {
                    let state = match (i.up, i.state) {
                        (false, _) => "down",
                        (true, None) => "up",
                        (true, Some(state)) => state.name(),
                    };
                    Row {
                        cells: vec![
                            i.name.clone(),
                            state.to_owned(),
                            per_second(i.rx_rate),
                            per_second(i.tx_rate),
                            i.load
                                .map_or_else(|| "-".into(), |load| format!("{load:.1} %")),
                            i.dropped.to_string(),
                        ],
                        alarm: i.dropped_rate > 0.0 || state == "bus-off",
                        index: 0,
                        rate: i.rx_rate + i.tx_rate,
                        dropped: i.dropped_rate,
                    }
                })
                .collect(),
        ),
        Pane::Rules => (
            &["rate", "handled", "dropped", "deleted", "rule"],
            rates
                .rules
                .iter()
                .map(|rule| {
                    let mut text = rule.rule.clone();
                    if let Some(name) = &rule.waiting_for {
                        text += &format!(" WAITING for {name}");
                    }
                    Row {
                        cells: vec![
                            per_second(rule.rate),
                            rule.handled.to_string(),
                            rule.dropped.to_string(),
                            rule.deleted.to_string(),
                            text,
                        ],
                        alarm: rule.dropped_rate > 0.0 || rule.waiting_for.is_some(),
                        index: 0,
                        rate: rule.rate,
                        dropped: rule.dropped_rate,
                    }
                })
                .collect(),
        ),
        Pane::Ids => (
            &["id", "interface", "rate", "count", "age", "data"],
            rates
                .ids
                .iter()
                .map(|id| Row {
                    cells: vec![
                        id.id.clone(),
                        id.interface.clone(),
                        per_second(id.rate),
                        id.count.to_string(),
                        format!("{:.1} s", id.age),
                        id.data.clone(),
                    ],
                    alarm: false,
                    index: 0,
                    rate: id.rate,
                    dropped: 0.0,
                })
                .collect(),
        ),
        Pane::Ports => (
            &[
                "port",
                "network",
                "sent",
                "received",
                "denied",
                "over rate",
                "filtered",
                "too large",
            ],
            rates
                .ports
                .iter()
                .map(|port| {
                    let mut cells = vec![
                        port.port.clone(),
                        port.network.clone(),
                        per_second(port.sent_rate),
                        per_second(port.received_rate),
                    ];
                    cells.extend(port.kept_back.iter().map(|(_, frames)| frames.to_string()));
                    Row {
                        cells,
                        alarm: port.kept_back_rate > 0.0,
                        index: 0,
                        rate: port.sent_rate + port.received_rate,
                        dropped: port.kept_back_rate,
                    }
                })
                .collect(),
        ),
    };
    for (index, row) in rows.iter_mut().enumerate() {
        row.index = index;
    }
    let filter = filter.to_lowercase();
    rows.retain(|row| {
        let mut cells = row.cells.iter();
        cells.any(|cell| cell.to_lowercase().contains(&filter))
    });
    let most = |a: f64, b: f64| b.partial_cmp(&a).unwrap_or(Ordering::Equal);
    match order {
        Order::Given => {}
        Order::Name => {
            let column = if pane == Pane::Rules {
                head.len() - 1
            } else {
                0
            };
            rows.sort_by(|a, b| a.cells[column].cmp(&b.cells[column]));
        }
        Order::Rate => rows.sort_by(|a, b| most(a.rate, b.rate)),
        Order::Dropped => rows.sort_by(|a, b| most(a.dropped, b.dropped)),
    }
    Table { head, rows }
}
