//! What can go wrong, with the thing, the reason and the remedy in the message.

use crate::rule::Engine;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the gateway. Whatever it is, the rules in force are the ones from before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No interface has this name.
    #[error(
        "interface {name} does not exist in this network namespace; `ip link` lists those that do"
    )]
    NoInterface {
        /// The name given.
        name: String,
    },
    /// There is an interface of a name that is wanted for another one.
    #[error("there is an interface {name} already; give one of them another name")]
    InterfaceExists {
        /// The name.
        name: String,
    },
    /// The interface is not a CAN interface.
    #[error("interface {name} is not a CAN interface")]
    NotCan {
        /// The name given.
        name: String,
    },
    /// Source and target are the same interface.
    #[error("source and target are both {name}; a rule back to the same interface needs -i")]
    SameInterface {
        /// The name given.
        name: String,
    },
    /// The rule's hop limit is above the gateway's.
    #[error(
        "hop limit {limit} is above max-hops {max}; `cangw settings max-hops {limit}` raises it (1 to 6)"
    )]
    HopLimit {
        /// The rule's limit.
        limit: u8,
        /// The gateway's limit.
        max: u8,
    },
    /// The target cannot carry the rule's frames.
    #[error(
        "target {name} has MTU {mtu}, but CAN {kind} frames need {need}; set it with `ip link set {name} mtu {need}` while the interface is down"
    )]
    Mtu {
        /// Name of the target.
        name: String,
        /// Its MTU, in bytes.
        mtu: u32,
        /// The MTU needed, in bytes.
        need: u32,
        /// Name of the frame type.
        kind: &'static str,
    },
    /// No rule records the frames of an interface.
    #[error("no rule of {name} has --watch; `cangw rule add -s {name} --watch` adds one")]
    NotWatched {
        /// The interface.
        name: String,
    },
    /// A name or value that a DBC file does not have.
    #[error(transparent)]
    Dbc(#[from] crate::dbc::DbcError),
    /// A rule by names that cannot be.
    #[error(transparent)]
    Names(#[from] crate::dbc::NameError),
    /// No rule is like the one to be deleted.
    #[error(
        "no rule matches {rule}; a rule is deleted by the same interfaces, flags, hop limit and filter with which it was added"
    )]
    NoRule {
        /// The rule as options.
        rule: String,
    },
    /// `-u` names a rule that is for other frames.
    #[error(
        "uid {uid:X} belongs to the rule {rule}; its modifications can be replaced by a rule with the same interfaces, filter and type of frames only"
    )]
    Uid {
        /// The uid.
        uid: u32,
        /// The rule that has it, as options.
        rule: String,
    },
    /// The number of rules is limited.
    #[error("there are {max} rules in this network namespace already; no more can be counted")]
    TooManyRules {
        /// The limit.
        max: u32,
    },
    /// The rules of an interface cannot be compiled.
    #[error("the rules of {interface} do not fit: {error}. Concerned: {rules}")]
    Compile {
        /// Source interface.
        interface: String,
        /// Why.
        error: crate::compile::Error,
        /// The rules, the first few as options.
        rules: String,
    },
    /// An engine was forced that cannot carry out the rules.
    #[error("engine {engine} cannot serve {interface}: {reason}")]
    Engine {
        /// The engine asked for.
        engine: Engine,
        /// The interface.
        interface: String,
        /// Why not.
        reason: String,
    },
    /// An interface cannot echo, because another program's qdisc stands where `clsact` belongs.
    #[error(
        "{interface} has an ingress qdisc of another program or with its filters, but -e needs clsact there, which has the same hook and one more; remove it with `tc qdisc del dev {interface} ingress` (its filters go with it), and add clsact"
    )]
    IngressQdisc {
        /// The interface.
        interface: String,
    },
    /// What `cangwd` said.
    #[error("{message}")]
    Remote {
        /// Its words.
        message: String,
        /// The error number that can-gw gives in the same case.
        errno: Option<i32>,
    },
    /// A capability is missing.
    #[error(
        "{what} needs {capability}, which this process lacks; run it as root, or grant the capability"
    )]
    Privilege {
        /// The operation.
        what: &'static str,
        /// Names of the capabilities.
        capability: &'static str,
    },
    /// The kernel lacks something.
    #[error("this kernel has no {what}: {remedy}")]
    Unsupported {
        /// The feature.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// bpffs is not mounted.
    #[error(
        "no BPF file system at /sys/fs/bpf, where the rules are kept; mount it with `mount -t bpf bpf /sys/fs/bpf`"
    )]
    NoBpffs,
    /// The rules in the kernel were written by another version.
    #[error(
        "the rules in force were installed by another version of cangw (state {found}, this one writes {expected}); remove them with that version's `cangw -F`, or remove {path}"
    )]
    Version {
        /// Version found.
        found: u32,
        /// Version of this program.
        expected: u32,
        /// Folder of the state.
        path: String,
    },
    /// A netlink request failed.
    #[error("{what}: {source}")]
    Netlink {
        /// The request.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A BPF operation failed.
    #[error("{what}: {message}")]
    Bpf {
        /// The operation.
        what: String,
        /// The library's and the kernel's answer.
        message: String,
    },
    /// No ECU has this name, or several have.
    #[error("{}", if candidates.is_empty() { format!("there is no ECU {name}, because no topology is up; `cangw up FILE` brings one up") } else { format!("{name} does not name one ECU; there are {candidates}") })]
    NoEcu {
        /// The name given.
        name: String,
        /// What could be meant.
        candidates: String,
    },
    /// A network namespace that a topology would make is somebody else's.
    #[error(
        "there is a network namespace {name}, which is no topology's; remove it with `ip netns del {name}`, or give the topology another name"
    )]
    ForeignNamespace {
        /// Its name.
        name: String,
    },
    /// A topology could not be changed.
    #[error(
        "{step}: {error}. {}",
        if left.is_empty() { "Everything is as it was before".to_owned() } else { format!("Could not be undone: {}", left.join("; ")) }
    )]
    Step {
        /// The step that failed.
        step: String,
        /// Why.
        error: Box<Self>,
        /// What could not be undone.
        left: Vec<String>,
    },
    /// A container's network or interface that cannot be as it was asked for.
    #[error("{message}")]
    Container {
        /// What cannot be, why, and what to do.
        message: String,
    },
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A rule of can-gw has something that rules here do not have.
    #[error(
        "can-gw's rule {rule} cannot be imported: {refusal}; delete it with the program that added it, then import the others"
    )]
    NotImportable {
        /// The rule's interfaces as options.
        rule: String,
        /// What it has.
        refusal: crate::kernel::gw::Refusal,
    },
    /// An import failed after can-gw's rules had been deleted.
    #[error(
        "no rule was imported: {error}. can-gw has its rules again, {restored} of them with counters that start at 0{}",
        if lost.is_empty() { String::new() } else { format!(", but did not take these back, add them by hand: {}", lost.join(", ")) }
    )]
    NotImported {
        /// Why.
        error: Box<Self>,
        /// Rules that were put back.
        restored: usize,
        /// Rules that could not be put back, with the reason.
        lost: Vec<String>,
    },
    /// Text that cannot be understood.
    #[error("{0}")]
    Parse(#[from] crate::rule::ParseError),
    /// A frame's text.
    #[error(transparent)]
    Frame(#[from] crate::frame_text::FrameTextError),
    /// A value in a rule file.
    #[error("{}{message}", key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
    Key {
        /// Its key, with those of the tables around it; `None` when the file has none there.
        key: Option<String>,
        /// What is wrong with it.
        message: String,
    },
    /// Two files describe a topology of the same name.
    #[error("{} and {} both describe the topology {name}; give one of them another name", files[0], files[1])]
    TwiceTopology {
        /// Its name.
        name: String,
        /// The files.
        files: [String; 2],
    },
    /// A line of a rule file.
    #[error("{file}, line {line}: {error}")]
    File {
        /// The file.
        file: String,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        error: Box<Self>,
    },
}

impl Error {
    /// The error number that can-gw gives in the same case, if it has one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NotCan { .. } => Some(libc::ENODEV),
            Self::SameInterface { .. }
            | Self::HopLimit { .. }
            | Self::NoRule { .. }
            | Self::Uid { .. }
            | Self::Parse(crate::rule::ParseError::Index { .. }) => Some(libc::EINVAL),
            Self::Privilege { .. } => Some(libc::EPERM),
            Self::Unsupported { .. } => Some(libc::EOPNOTSUPP),
            Self::NotImported { error, .. } => error.errno(),
            Self::Remote { errno, .. } => *errno,
            _ => None,
        }
    }

    /// A failed BPF operation.
    pub fn bpf(what: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.contains(&cause_text) {
                message = format!("{message}: {cause_text}");
            }
            source = cause.source();
        }
        Self::Bpf {
            what: what.into(),
            message,
        }
    }

    /// A failed file operation.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}
