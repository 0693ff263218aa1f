//! Names of rules and interfaces, kept up to date while a capture runs.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::gateway::Gateway;
use crate::kernel::netlink::Netlink;
use crate::kernel::{clock, link};

/// A rule that was changed and an interface that was renamed have their old name for at most so long.
const FRESH: Duration = Duration::from_millis(500);

/// The names.
pub(super) struct Names {
    rules: HashMap<u16, String>,
    interfaces: HashMap<u32, String>,
    asked: Instant,
    /// Nanoseconds from the start of the monotonic clock to that of 1970, backwards.
    epoch: u64,
}

impl Names {
    pub fn new() -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or(Duration::ZERO).as_nanos() as u64;
        let mut names = Self {
            rules: HashMap::new(),
            interfaces: HashMap::new(),
            asked: Instant::now(),
            epoch: now.saturating_sub(clock::monotonic()?),
        };
        names.ask()?;
        Ok(names)
    }

    /// Names that are what they are, with times as they come.
    #[cfg(test)]
    pub fn fixed(rules: &[(u16, &str)], interfaces: &[(u32, &str)]) -> Self {
        Self {
            rules: rules
                .iter()
                .map(|&(slot, rule)| (slot, rule.to_owned()))
                .collect(),
            interfaces: interfaces
                .iter()
                .map(|&(index, name)| (index, name.to_owned()))
                .collect(),
            asked: Instant::now(),
            epoch: 0,
        }
    }

    /// Sees to it that there is an interface.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn require(&self, interface: &str) -> Result<()> {
        if self.interfaces.values().any(|name| name == interface) {
            return Ok(());
        }
        Err(Error::NoInterface {
            name: interface.to_owned(),
        })
    }

    /// Nanoseconds after the start of 1970.
    pub fn wall(&self, monotonic: u64) -> u64 {
        self.epoch.saturating_add(monotonic)
    }

    /// The rule with a slot, as options. Another rule gets that slot only after the capture ([`crate::state::State::retire`]).
    pub fn rule(&mut self, slot: u16) -> String {
        self.refresh(self.rules.contains_key(&slot));
        let gone = || format!("a rule that is gone ({slot})");
        self.rules.entry(slot).or_insert_with(gone).clone()
    }

    /// The interface with a number.
    pub fn interface(&mut self, ifindex: u32) -> String {
        self.refresh(self.interfaces.contains_key(&ifindex));
        let gone = || format!("if{ifindex}");
        self.interfaces.entry(ifindex).or_insert_with(gone).clone()
    }

    fn refresh(&mut self, is_known: bool) {
        if !is_known || self.asked.elapsed() >= FRESH {
            // What was known stays; it is asked again later.
            let _ = self.ask();
        }
    }

    /// Rules and interfaces that are gone keep their names, for what is still told of them.
    fn ask(&mut self) -> Result<()> {
        self.asked = Instant::now();
        let links = link::list(&Netlink::open()?)?;
        self.interfaces
            .extend(links.into_iter().map(|link| (link.index, link.name)));
        if let Some(gateway) = Gateway::look()? {
            self.rules.extend(gateway.rule_names());
        }
        Ok(())
    }
}
