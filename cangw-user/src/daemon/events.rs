//! What happened, for clients that subscribed: found by comparing what is with what was, once in a while and only while somebody listens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio::task::spawn_blocking;

use super::shared::Shared;
use crate::api::Method as _;
use crate::api::methods::{LinkList, Stats};
use crate::api::service::Event;
use crate::error::Result;
use crate::gateway::Report;
use crate::kernel::can_status::{BusState, CanStatus};

/// How often what is gets looked at. Counters tell nobody that they have changed.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that a client may be behind; then it is cut off.
pub const BEHIND: usize = 1024;

/// Where clients subscribe.
pub(super) struct Events {
    sender: broadcast::Sender<Arc<str>>,
    subscribed: Notify,
}

/// What is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    interfaces: BTreeMap<String, (bool, Option<BusState>)>,
    /// How many rules are like one, what they wait for, and how many frames they dropped by overload.
    rules: BTreeMap<String, (usize, Option<String>, u64)>,
    errors: Vec<String>,
}

impl Snapshot {
    fn take(errors: Vec<String>) -> Result<Self> {
        Ok(Self::of(
            &LinkList {}.perform()?,
            &Stats {}.perform()?,
            errors,
        ))
    }

    fn of(links: &[CanStatus], report: &Report, errors: Vec<String>) -> Self {
        let interfaces = links.iter();
        let interfaces = interfaces.map(|link| (link.name.clone(), (link.up, link.state)));
        let mut rules: BTreeMap<String, (usize, Option<String>, u64)> = BTreeMap::new();
        for rule in &report.rules {
            let known = rules.entry(rule.rule.to_string()).or_default();
            known.0 += 1;
            known.1.clone_from(&rule.waiting_for);
            known.2 += rule.dropped_over_rate + rule.dropped_refused;
        }
        Self {
            interfaces: interfaces.collect(),
            rules,
            errors,
        }
    }

    /// What happened since.
    fn since(&self, before: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, &(up, state)) in &self.interfaces {
            let was = before.interfaces.get(name);
            if was == Some(&(up, state)) {
                continue;
            }
            events.push(Event::Interface {
                name: name.clone(),
                present: true,
                up,
                state,
            });
            if state == Some(BusState::BusOff) && was.is_none_or(|was| was.1 != state) {
                events.push(Event::BusOff { name: name.clone() });
            }
        }
        let gone = |name: &&String| !self.interfaces.contains_key(*name);
        events.extend(
            before
                .interfaces
                .keys()
                .filter(gone)
                .map(|name| Event::Interface {
                    name: name.clone(),
                    present: false,
                    up: false,
                    state: None,
                }),
        );
        for (rule, (number, waiting_for, dropped)) in &self.rules {
            let was = before.rules.get(rule);
            if was.is_none_or(|was| (was.0, &was.1) != (*number, waiting_for)) {
                events.push(Event::Rule {
                    rule: rule.clone(),
                    present: true,
                    waiting_for: waiting_for.clone(),
                });
            }
            let frames = was.map_or(0, |was| dropped.saturating_sub(was.2));
            if frames != 0 {
                events.push(Event::Overload {
                    rule: rule.clone(),
                    frames,
                });
            }
        }
        let gone = |rule: &&String| !self.rules.contains_key(*rule);
        events.extend(before.rules.keys().filter(gone).map(|rule| Event::Rule {
            rule: rule.clone(),
            present: false,
            waiting_for: None,
        }));
        if self.errors != before.errors {
            events.push(Event::Health {
                errors: self.errors.clone(),
            });
        }
        events
    }
}

impl Events {
    pub fn new() -> Self {
        Self {
            sender: broadcast::channel(BEHIND).0,
            subscribed: Notify::new(),
        }
    }

    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        let receiver = self.sender.subscribe();
        self.subscribed.notify_one();
        receiver
    }

    /// Looks for events until the daemon ends.
    pub async fn run(&self, shared: &Shared) {
        loop {
            self.subscribed.notified().await;
            let mut before: Option<Snapshot> = None;
            while self.sender.receiver_count() != 0 {
                let errors = shared.outcome().errors;
                let taken = spawn_blocking(|| Snapshot::take(errors)).await;
                if let Ok(Ok(now)) = taken {
                    if let Some(before) = &before {
                        for event in now.since(before) {
                            self.tell(&event);
                        }
                    }
                    before = Some(now);
                }
                tokio::time::sleep(PERIOD).await;
            }
        }
    }

    fn tell(&self, event: &Event) {
        if let Ok(mut line) = serde_json::to_string(event) {
            line.push('\n');
            // Whoever listened may be gone.
            let _ = self.sender.send(line.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_once() {
        let mut before = Snapshot::default();
        before
            .interfaces
            .insert("can0".into(), (true, Some(BusState::ErrorActive)));
        before.interfaces.insert("can1".into(), (true, None));
        before.rules.insert("-s can0 -d can1".into(), (1, None, 5));
        assert_eq!(before.since(&before), []);
        let mut now = before.clone();
        now.interfaces
            .insert("can0".into(), (true, Some(BusState::BusOff)));
        now.interfaces.remove("can1");
        now.rules
            .insert("-s can0 -d can1".into(), (1, Some("can1".into()), 7));
        now.errors.push("car: no can1".into());
        let events = now.since(&before);
        let json: Vec<String> = events
            .iter()
            .map(|event| serde_json::to_string(event).unwrap())
            .collect();
        assert_eq!(
            json,
            [
                r#"{"event":"interface","data":{"name":"can0","present":true,"up":true,"state":"bus-off"}}"#,
                r#"{"event":"bus_off","data":{"name":"can0"}}"#,
                r#"{"event":"interface","data":{"name":"can1","present":false,"up":false,"state":null}}"#,
                r#"{"event":"rule","data":{"rule":"-s can0 -d can1","present":true,"waiting_for":"can1"}}"#,
                r#"{"event":"overload","data":{"rule":"-s can0 -d can1","frames":2}}"#,
                r#"{"event":"health","data":{"errors":["car: no can1"]}}"#,
            ]
        );
        assert_eq!(now.since(&now), []);
    }
}
