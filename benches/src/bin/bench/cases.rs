//! What is measured.

use cangw_tests::frame::{EFF, Frame};
use fastrand::Rng;

/// Who carries frames from one pair to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// Nobody: what the sender alone costs.
    None,
    /// `matchall` and `mirred redirect` without a program: the least that a second hop can cost.
    Kernel,
    /// A program that reads from one raw socket and writes to another.
    Forwarder,
    /// The kernel's can-gw.
    CanGw,
    /// Ours at tc while a local socket listens on the source: it is copied, as with can-gw.
    Tc,
    /// Ours at tc while none listens.
    TcUnheard,
    /// Ours at tc, exclusive.
    TcExclusive,
    /// Ours at XDP, exclusive.
    XdpExclusive,
    /// A virtual bus, as topologies and containers have it.
    Bus,
    /// One on which every port has limits: identifiers that it may send and gets, and a rate.
    LimitedBus,
}

impl Gateway {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => cangw_benches::NO_GATEWAY,
            Self::Kernel => "matchall, mirred",
            Self::Forwarder => "two raw sockets",
            Self::CanGw => cangw_benches::CAN_GW,
            Self::Tc => "cangw tc",
            Self::TcUnheard => "cangw tc unheard",
            Self::TcExclusive => "cangw tc exclusive",
            Self::XdpExclusive => "cangw XDP exclusive",
            Self::Bus => "cangw bus",
            Self::LimitedBus => "cangw bus with limits",
        }
    }
}

/// What the rules ask of identifiers. The last rule matches the frame, no other does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One standard identifier each.
    Standard,
    /// One extended identifier each.
    Extended,
    /// Masks on standard identifiers, each for two of them.
    Mask,
    /// Masks on extended identifiers: any source address.
    ExtendedMask,
    /// Parameter groups of SAE J1939: any priority and source address.
    Group,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Standard,
        Self::Extended,
        Self::Mask,
        Self::ExtendedMask,
        Self::Group,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "11-bit identifiers",
            Self::Extended => "29-bit identifiers",
            Self::Mask => "11-bit masks",
            Self::ExtendedMask => "29-bit masks",
            Self::Group => "PGNs",
        }
    }

    /// Identifier of the frames.
    const fn id(self) -> u32 {
        match self {
            Self::Standard | Self::Mask => 0x123,
            Self::Extended => EFF | 0x1234,
            Self::ExtendedMask | Self::Group => EFF | 0x1855_0721,
        }
    }

    /// How many rules there can be.
    const fn most(self) -> u32 {
        match self {
            Self::Standard => 2048,
            _ => 10_000,
        }
    }

    /// Identifiers and masks of so many rules.
    pub fn filters(self, count: u32) -> Vec<(u32, u32)> {
        let mask_of_last = match self {
            Self::Standard => 0xC000_07FF,
            Self::Mask => 0xC000_07FE,
            Self::Extended => 0xDFFF_FFFF,
            Self::ExtendedMask => 0x9FFF_FF00,
            Self::Group => 0x83FF_FF00,
        };
        let last = (self.id() & mask_of_last, mask_of_last);
        let mut random = Rng::with_seed(1);
        let mut others = (0..).filter_map(|number: u32| {
            let filter = match self {
                Self::Standard => (number, mask_of_last),
                Self::Extended => (EFF | (number * 7919), mask_of_last),
                Self::Mask => {
                    let mask = 0xC000_07FF & !(1 << random.u32(0..11));
                    (random.u32(0..0x800) & mask, mask)
                }
                Self::ExtendedMask | Self::Group => (EFF | (number << 8), mask_of_last),
            };
            (self.id() & filter.1 != filter.0).then_some(filter)
        });
        let mut filters: Vec<_> = others.by_ref().take(count as usize - 1).collect();
        filters.push(last);
        filters
    }
}

/// A measurement.
#[derive(Clone, Debug)]
pub struct Case {
    /// The table that it belongs to.
    pub group: &'static str,
    pub gateway: Gateway,
    pub kind: Kind,
    pub rules: u32,
    /// Interfaces to which each frame goes.
    pub targets: u32,
    /// Whether the rule changes the identifier and a byte, and writes a CRC8.
    pub changes: bool,
    pub fd: bool,
    /// Whether the sender's interface has a copy of the frame, as other sockets there get it.
    pub shared: bool,
    /// Frames that are sent.
    pub frames: u32,
    /// Whether a check for regressions has it.
    pub quick: bool,
}

impl Case {
    const fn new(group: &'static str, gateway: Gateway) -> Self {
        Self {
            group,
            gateway,
            kind: Kind::Standard,
            rules: 1,
            targets: 1,
            changes: false,
            fd: false,
            shared: false,
            frames: 10_000,
            quick: true,
        }
    }

    /// Tells it from all others.
    pub fn name(&self) -> String {
        let Self {
            rules,
            targets,
            gateway,
            ..
        } = self;
        let gateway = gateway.name();
        match self.group {
            RULES => format!("{gateway}, {rules} {}", self.kind.name()),
            TARGETS => format!("{gateway}, {targets} targets"),
            CHANGES => format!("{gateway}, -m and CRC8"),
            SHARED => format!("{gateway}, -m and CRC8, frame shared"),
            FD => format!("{gateway}, CAN FD"),
            HEARD => format!("{gateway}, heard"),
            UNMATCHED => format!("{gateway}, no rule matches"),
            _ => gateway.to_owned(),
        }
    }

    pub fn frame(&self) -> Frame {
        let data = [1, 2, 3, 4, 5, 6, 7, 8];
        if self.group == UNMATCHED {
            return Frame::classic(0x321, &data);
        }
        if self.fd {
            Frame::fd(self.kind.id(), 0, &[data; 8].concat())
        } else {
            Frame::classic(self.kind.id(), &data)
        }
    }

    /// Whether a socket listens on the source, though not to these frames: what copies does it for somebody.
    pub fn is_heard(&self) -> bool {
        self.group == HEARD || self.gateway == Gateway::Tc
    }

    /// Whether all frames go everywhere, whatever their identifiers.
    pub fn is_hub(&self) -> bool {
        self.group == TARGETS
    }

    pub fn forwards(&self) -> bool {
        self.gateway != Gateway::None && self.group != UNMATCHED
    }
}

pub const PATH: &str = "path";
const RULES: &str = "rules";
const TARGETS: &str = "targets";
const CHANGES: &str = "changes";
const SHARED: &str = "shared";
const FD: &str = "fd";
const HEARD: &str = "heard";
const UNMATCHED: &str = "unmatched";

/// All measurements.
pub fn all() -> Vec<Case> {
    use Gateway::{
        Bus, CanGw, Forwarder, Kernel, LimitedBus, None, Tc, TcExclusive, TcUnheard, XdpExclusive,
    };
    let mut cases: Vec<Case> = [
        None,
        Kernel,
        CanGw,
        Forwarder,
        Tc,
        TcUnheard,
        TcExclusive,
        XdpExclusive,
    ]
    .map(|gateway| Case::new(PATH, gateway))
    .into();
    for kind in Kind::ALL {
        for rules in [1, 10, 100, 1000, 10_000] {
            if rules > kind.most() {
                continue;
            }
            for gateway in [CanGw, Tc, TcExclusive] {
                // A mask costs can-gw 7 instructions for each frame.
                let scans = gateway == CanGw && rules == 10_000;
                cases.push(Case {
                    kind,
                    rules,
                    frames: if scans { 1000 } else { 10_000 },
                    quick: gateway == TcExclusive && rules == 10_000
                        || kind == Kind::Mask && rules == 1000,
                    ..Case::new(RULES, gateway)
                });
            }
        }
    }
    for (group, targets) in [
        (CHANGES, 1),
        (SHARED, 1),
        (FD, 1),
        (HEARD, 1),
        (UNMATCHED, 1),
        (TARGETS, 2),
        // Of a hub of 8 and of 32 ports, all but the one where the frame enters.
        (TARGETS, 7),
        (TARGETS, 31),
    ] {
        for gateway in [
            None,
            CanGw,
            Tc,
            TcUnheard,
            TcExclusive,
            XdpExclusive,
            Bus,
            LimitedBus,
        ] {
            let is_in = match (group, gateway) {
                // Other groups have the sender of the first one.
                (SHARED | HEARD | UNMATCHED, None) => true,
                (_, None) | (HEARD, TcUnheard | TcExclusive) => false,
                (_, XdpExclusive | Bus | LimitedBus) => group == TARGETS,
                _ => true,
            };
            if !is_in {
                continue;
            }
            cases.push(Case {
                targets,
                changes: matches!(group, CHANGES | SHARED),
                fd: group == FD,
                shared: group == SHARED,
                frames: 10_000 / targets / BATCH * BATCH,
                quick: !matches!(gateway, Bus | LimitedBus),
                ..Case::new(group, gateway)
            });
        }
    }
    cases
}

/// Frames that are sent in one go.
pub const BATCH: u32 = 100;
