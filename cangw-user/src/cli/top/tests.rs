use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Color;

use super::keys::{Choice, Then};
use super::rates::{Rates, Sample};
use super::screen::draw;
use super::view::{Order, Pane, table};
use crate::api::methods::TopReport;
use crate::gateway::{Report, RuleReport};
use crate::kernel::can_status::{BusState, CanStatus};

fn rule(target: &str, handled: u64, dropped: u64) -> RuleReport {
    let rule = serde_json::json!({
        "source": "can0", "target": target, "kind": "classic", "echo": false, "timestamp": false, "iif_tx_ok": false,
        "limit": 0, "filter": null, "waiting_for": null, "handled": handled, "dropped": dropped, "deleted": 0,
        "deleted_hop_limit": 0, "deleted_too_long": 0, "dropped_refused": dropped, "dropped_mtu": 0, "dropped_waiting": 0,
        "skipped_origin": 0, "dropped_by_rule": 0, "dropped_over_rate": 0, "dropped_by_fault": 0, "duplicated": 0,
        "corrupted": 0, "rate_shared": 0
    });
    serde_json::from_value(rule).unwrap()
}

fn sample(time: Instant, frames: u64) -> Sample {
    let controller = CanStatus {
        name: "can0".into(),
        up: true,
        state: Some(BusState::ErrorActive),
        bitrate: Some(500_000),
        rx_frames: frames,
        rx_bytes: 8 * frames,
        ..CanStatus::default()
    };
    let top = TopReport {
        report: Report {
            // The same rule twice, and one that drops.
            rules: vec![
                rule("can1", 2 * frames, 0),
                rule("can1", frames, 0),
                rule("can2", 0, frames),
            ],
            interfaces: Vec::new(),
        },
        links: vec![controller],
        ..TopReport::default()
    };
    Sample { time, top }
}

fn rates() -> Rates {
    let begin = Instant::now();
    Rates::between(
        &sample(begin, 1000),
        &sample(begin + Duration::from_secs(2), 3000),
    )
}

#[test]
fn rates_are_what_came_between_two_looks() {
    let rates = rates();
    let of_rules: Vec<f64> = rates.rules.iter().map(|rule| rule.rate).collect();
    assert_eq!(of_rules, [2000.0, 1000.0, 0.0]);
    assert_eq!(rates.rules[2].dropped_rate, 1000.0);
    let can0 = &rates.interfaces[0];
    assert_eq!(can0.rx_rate, 1000.0);
    // 1,000 frames of 47 + 64 bits in a second, of 500,000.
    assert!((can0.load.unwrap() - 22.2).abs() < 1e-9);
}

#[test]
fn rows_are_sorted_and_filtered() {
    let rates = rates();
    let indices = |order, filter: &str| -> Vec<usize> {
        let table = table(Pane::Rules, &rates, &order, filter);
        table.rows.iter().map(|row| row.index).collect()
    };
    assert_eq!(indices(Order::Given, ""), [0, 1, 2]);
    assert_eq!(indices(Order::Dropped, ""), [2, 0, 1]);
    assert_eq!(indices(Order::Rate, ""), [0, 1, 2]);
    assert_eq!(indices(Order::Name, "CAN2"), [2]);
}

fn press(choice: &mut Choice, keys: &[KeyCode], rates: &Rates) -> Then {
    let mut then = Then::GoOn;
    for key in keys {
        then = choice.press(KeyEvent::from(*key), rates);
    }
    then
}

#[test]
fn keys_choose() {
    use KeyCode::{Char, Down, Enter, Esc, Tab};
    let rates = rates();
    let mut choice = Choice::default();
    press(&mut choice, &[Tab, Char('2'), Char('3')], &rates);
    assert_eq!(choice.pane, Pane::Rules);
    press(&mut choice, &[Char('/'), Char('q'), Esc], &rates);
    assert_eq!((choice.filter.as_str(), choice.typing), ("", false));
    press(&mut choice, &[Char('s'), Char('s'), Char('s')], &rates);
    assert_eq!(choice.order, Order::Dropped);
    press(&mut choice, &[Down, Down, Down, Enter], &rates);
    assert_eq!((choice.row, choice.open), (2, Some(1)));
    press(&mut choice, &[Esc, Char(' ')], &rates);
    assert_eq!((choice.open, choice.paused), (None, true));
    assert_eq!(press(&mut choice, &[Char('q')], &rates), Then::End);
}

#[test]
fn what_is_lost_is_red() {
    let rates = rates();
    let mut terminal = Terminal::new(TestBackend::new(80, 20)).unwrap();
    let mut choice = Choice::default();
    terminal.draw(|frame| draw(frame, &rates, &choice)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| -> String { (0..80).map(|x| buffer[(x, y)].symbol()).collect() };
    let at = (0..20).find(|y| line(*y).contains("-d can2")).unwrap();
    assert!(line(at).contains("3000"), "{}", line(at));
    assert_eq!(buffer[(0, at)].fg, Color::Red);
    assert_ne!(buffer[(0, at - 1)].fg, Color::Red);
    choice.open = Some(2);
    terminal.draw(|frame| draw(frame, &rates, &choice)).unwrap();
    let buffer = terminal.backend().buffer();
    let text: String = buffer.content().iter().map(|cell| cell.symbol()).collect();
    assert!(text.contains("3000 dropped: refused"), "{text}");
}
