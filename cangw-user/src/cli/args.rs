//! The options: help, man page and parsing come from this one definition.

use clap::{ArgAction, Args, Parser, Subcommand};

use super::tunnel::TunnelCommand;
use crate::capture::Filter;
use crate::gateway::InterfaceChange;
use crate::options::Policy;
use crate::rule::Engine;

/// CAN gateway in eBPF: filters and forwards CAN frames between interfaces, in the kernel.
///
/// With the options of can-utils' cangw it takes its place in scripts. Rules live in the kernel, need no daemon, and
/// stay until they are deleted. Identifiers, masks and uid are hexadecimal, all other numbers are decimal.
#[derive(Parser, Debug)]
#[command(
    name = "cangw",
    version,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    after_help = "Example: cangw -A -s can0 -d vcan3 -e -f 123:C00007FF"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub classic: Classic,
}

/// The options of can-utils' cangw.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of can-utils' cangw")]
pub struct Classic {
    /// Add a rule
    #[arg(short = 'A')]
    pub add: bool,
    /// Delete a rule: the newest with the same interfaces, flags, hop limit and filter
    #[arg(short = 'D')]
    pub delete: bool,
    /// Flush: delete all rules and everything they needed in the kernel
    #[arg(short = 'F')]
    pub flush: bool,
    /// List all rules, newest first
    #[arg(short = 'L')]
    pub list: bool,
    #[command(flatten)]
    pub rule: RuleArgs,
    /// Show the usage
    #[arg(short = '?')]
    pub usage: bool,
}

/// What a rule is made of.
#[derive(Args, Debug, Clone)]
pub struct RuleArgs {
    /// Source interface
    #[arg(short = 's', value_name = "IF", allow_hyphen_values = true)]
    pub source: Option<String>,
    /// Target interface
    #[arg(short = 'd', value_name = "IF", allow_hyphen_values = true)]
    pub target: Option<String>,
    /// The rule takes CAN FD frames, and only these
    #[arg(short = 'X', conflicts_with = "xl")]
    pub fd: bool,
    /// The rule takes CAN XL frames, and only these
    #[arg(long)]
    pub xl: bool,
    /// Echo: deliver sent frames to local sockets of the target, too (recommended on vcan)
    #[arg(short = 'e')]
    pub echo: bool,
    /// Preserve the receive time stamp
    #[arg(short = 't')]
    pub timestamp: bool,
    /// Allow a frame to go back to the interface that it came from
    #[arg(short = 'i')]
    pub iif_tx_ok: bool,
    /// User defined identifier of modifications; adding a rule with one that exists replaces that rule's modifications.
    /// Without effect on a rule that modifies nothing
    #[arg(short = 'u', value_name = "UID")]
    pub uid: Option<String>,
    /// Hop limit: how often a frame that this rule forwards first may be forwarded in all
    #[arg(short = 'l', value_name = "HOPS", allow_hyphen_values = true)]
    pub limit: Option<String>,
    /// Filter: ID:MASK takes frames with received id & MASK == ID & MASK, ID~MASK all others
    #[arg(short = 'f', value_name = "ID:MASK", allow_hyphen_values = true)]
    pub filter: Option<String>,
    /// Modify classic frames: AND, OR, XOR or SET, on the Identifier, the Length (raw DLC), the Data, as in
    /// SET:IL:333.4.1122334455667788. Up to four, done in this order
    #[arg(short = 'm', value_name = "OP:ILD:ID.DLC.DATA", action = ArgAction::Append)]
    pub modify: Vec<String>,
    /// Modify CAN FD frames, also their Flags: as -m, with 64 data bytes
    #[arg(short = 'M', value_name = "OP:IFLD:ID.FLAGS.LEN.DATA", action = ArgAction::Append)]
    pub modify_fd: Vec<String>,
    /// XOR checksum over data bytes FROM to TO, written to RESULT; negative indices count from the end of the data
    #[arg(
        short = 'x',
        value_name = "FROM:TO:RESULT:INIT",
        allow_hyphen_values = true
    )]
    pub xor: Option<String>,
    /// CRC8 checksum, written before the XOR checksum; TABLE has 256 bytes
    #[arg(
        short = 'c',
        value_name = "FROM:TO:RESULT:INIT:XOR:TABLE",
        allow_hyphen_values = true
    )]
    pub crc8: Option<String>,
    /// Extra step of the CRC8: 1:BYTE adds a byte, 2:TABLE one of 16 bytes by the low bits of data[1], 3: the low bytes of
    /// the identifier
    #[arg(short = 'p', value_name = "PROFILE:[DATA]")]
    pub profile: Option<String>,
}

/// What can-gw does not have: for `cangw rule`, not for `cangw -A`.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Beyond can-gw")]
pub struct OptionArgs {
    /// Identifiers and ranges of them, separated by commas: 3 digits for standard, 8 for extended ones, as in
    /// 123,200-2FF,18FEF100. Data frames only
    #[arg(long, value_name = "IDS", conflicts_with = "filter")]
    pub id: Vec<String>,
    /// J1939 parameter groups, separated by commas, from every priority and source; PDU1 groups end with 00
    #[arg(long, value_name = "PGNS", conflicts_with = "filter")]
    pub pgn: Vec<String>,
    /// Source addresses of the parameter groups
    #[arg(long, value_name = "ADDRESSES", requires = "pgn")]
    pub sa: Vec<String>,
    /// Destination addresses of the parameter groups (PDU1)
    #[arg(long, value_name = "ADDRESSES", requires = "pgn")]
    pub da: Vec<String>,
    /// DBC file in which messages and signals are looked up now
    #[arg(long, value_name = "FILE")]
    pub dbc: Option<std::path::PathBuf>,
    /// Messages of the DBC file, separated by commas, in the place of their identifiers
    #[arg(
        long,
        value_name = "NAMES",
        requires = "dbc",
        conflicts_with = "filter"
    )]
    pub message: Vec<String>,
    /// Write a value into a signal of the DBC file, in the signal's unit; the rule takes that message when it names no other
    /// identifiers. Checksums (-x, -c) are computed afterwards
    #[arg(long, value_name = "MESSAGE.SIGNAL=VALUE", requires = "dbc")]
    pub set: Vec<String>,
    /// CAN XL: virtual CAN network identifier
    #[arg(long, value_name = "VCID", requires = "xl")]
    pub vcid: Option<String>,
    /// CAN XL: SDU type
    #[arg(long, value_name = "SDT", requires = "xl")]
    pub sdt: Option<String>,
    /// CAN XL: acceptance field, with or without a mask
    #[arg(long, value_name = "VALUE[:MASK]", requires = "xl")]
    pub af: Option<String>,
    /// Rules of higher priority come first; of the same priority, those that drop
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub priority: Option<i16>,
    /// Without a target: drop the frames, also for local sockets and for rules that come later. With a target and a share,
    /// such as 1%: a fault, these copies are not sent
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "")]
    pub drop: Option<String>,
    /// Without a target: the policy deny lets these frames pass to local sockets
    #[arg(long, conflicts_with_all = ["target", "drop"])]
    pub pass: bool,
    /// At most so many frames in a time, such as 100/s, 30/min or 5/h; others are dropped
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// Frames that may come at once under --rate [default: what comes in 50 ms, at least 2]
    #[arg(long, value_name = "FRAMES")]
    pub burst: Option<u32>,
    /// --rate holds for each identifier
    #[arg(long)]
    pub per_id: bool,
    /// Fault: send a share of the frames twice
    #[arg(long, value_name = "SHARE")]
    pub duplicate: Option<String>,
    /// Fault: flip a bit in the data of a share of the frames, after modifications and checksums
    #[arg(long, value_name = "SHARE")]
    pub corrupt: Option<String>,
    /// Which frames the faults choose: the same number chooses the same
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Record the frames by identifier, for `cangw watch`
    #[arg(long)]
    pub watch: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Rules: list, add, delete, load from a file, flush
    #[command(subcommand)]
    Rule(Box<RuleCommand>),
    /// Interfaces: how their frames are handled
    #[command(subcommand)]
    Interface(InterfaceCommand),
    /// Settings of the gateway in this network namespace
    #[command(subcommand)]
    Settings(SettingsCommand),
    /// Counters of rules and interfaces
    Stats {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the identifiers that rules with --watch record on an interface: count, intervals, last data
    ///
    /// On a terminal the table is kept up to date until interrupted, and data bytes that changed are marked.
    Watch {
        /// The interface
        #[arg(allow_hyphen_values = true)]
        interface: String,
        /// Show messages and signals by the names of this DBC file
        #[arg(long, value_name = "FILE")]
        dbc: Option<std::path::PathBuf>,
        /// Once, as JSON
        #[arg(long)]
        json: bool,
        /// Once, as a table
        #[arg(long)]
        once: bool,
    },
    /// Show what goes on: buses, interfaces, rules and identifiers with their rates, what is lost in red
    ///
    /// On a terminal it is kept up to date until q ends it; otherwise tables are printed again and again. Identifiers are those on interfaces whose rules have
    /// --watch.
    Top {
        /// One JSON object on a line for each look
        #[arg(long)]
        json: bool,
        /// One look
        #[arg(long)]
        once: bool,
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
        interval: u64,
    },
    /// Show frames as they come and leave, with the rules that match and what became of each copy
    ///
    /// Also frames that are dropped are shown, and why. Without an option, lines are as in candump's logs with the direction and what became of the frame
    /// behind; canplayer reads them. At the end, what found no room in the buffer is told on standard error.
    Dump {
        /// Identifiers, ranges and filters as candump has them, separated by commas, as in 123,200-2FF,18FEF100,400:7F0; all frames without
        #[arg(value_name = "FILTER", default_value = "", hide_default_value = true)]
        filter: Filter,
        /// Frames of this bus of a topology, or of this interface. A bus that is a real device is known by its own name where cangwd runs
        #[arg(short = 'b', long, value_name = "BUS", allow_hyphen_values = true)]
        bus: Vec<String>,
        /// Write a file: pcapng, which Wireshark opens, or a log when its name ends with .log
        #[arg(short = 'w', long, value_name = "FILE", conflicts_with = "json")]
        write: Option<std::path::PathBuf>,
        /// Show messages and signals by the names of this DBC file
        #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "write"])]
        dbc: Option<std::path::PathBuf>,
        /// One JSON object on a line for each frame
        #[arg(long)]
        json: bool,
        /// End after so many frames
        #[arg(short = 'n', long, value_name = "FRAMES", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// Size of the buffer for what comes faster than it is written
        #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
        buffer: u8,
    },
    /// Follow frames through the gateway: where they come, which rules match, where they leave and when
    Trace {
        /// Identifiers, ranges and filters, as for `cangw dump`
        #[arg(value_name = "ID")]
        filter: Filter,
        /// One JSON object on a line for each frame that comes or leaves
        #[arg(long)]
        json: bool,
        /// End after so many frames
        #[arg(short = 'n', long, value_name = "FRAMES", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// What this kernel and these interfaces can do, and why not
    Probe {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Apply the rules again: those whose interfaces came back are in force afterwards
    Sync,
    /// Show what the programs log, until interrupted (`cangw settings log on` turns it on)
    Log,
    /// Take over the rules of the kernel's can-gw
    ///
    /// The rules of can-gw in this network namespace are printed, oldest first, added here, and deleted there: all of them, or,
    /// when one cannot be, none. No frame is forwarded by both. Counters start at 0.
    Import {
        /// Only print them
        #[arg(long)]
        dry_run: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write rules, settings and interfaces as a file that brings them back
    Export {
        /// A script of `cangw` lines, or TOML; `cangw rule load` reads both
        #[arg(long, value_name = "FORMAT", default_value = "script")]
        format: Format,
        /// The file, replaced as a whole; without it, standard output
        #[arg(short = 'o', long, value_name = "FILE")]
        output: Option<std::path::PathBuf>,
    },
    /// Bring a topology up, or change one that is up into what its file says now
    ///
    /// Only what differs is changed, and routes that stay lose no frame. After an error everything is as it was.
    Up {
        /// The topology's file
        file: String,
    },
    /// Take a topology down: its ECUs, buses and routes
    Down {
        /// Its name, or its file
        topology: String,
    },
    /// Show what `cangw up` would change
    Diff {
        /// The topology's file
        file: String,
    },
    /// Draw a topology
    Graph {
        /// The topology's file
        file: String,
        /// For Graphviz, for Mermaid, or a drawing
        #[arg(long, value_name = "FORMAT", default_value = "dot")]
        format: crate::topology::graph::Format,
    },
    /// Show the topologies that are up
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a program in an ECU's network namespace, as the user who called sudo
    Exec {
        /// The ECU, or TOPOLOGY.ECU
        ecu: String,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Start a shell in an ECU's network namespace, as the user who called sudo
    Shell {
        /// The ECU, or TOPOLOGY.ECU
        ecu: String,
    },
    /// Tunnels: buses over a network, in cannelloni's protocol
    #[command(subcommand)]
    Tunnel(TunnelCommand),
    /// List the hosts that share buses with this one: since when, delay, loss
    Peers {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the CAN networks of containers, with the counters of their ports
    Networks {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List what containers and network namespaces that are gone have left behind
    ///
    /// Docker is asked at /run/docker.sock, or at DOCKER_HOST, which networks and endpoints it has; where it does not answer, nothing of Docker's is
    /// taken for left behind. The exit code is 0 when there was nothing, or everything was removed.
    Doctor {
        /// Remove it
        #[arg(long)]
        fix: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take everything of cangw off this host: topologies, the rules and settings of all network namespaces, and what namespaces that are gone left
    Reset,
    /// Print what a shell needs to complete command lines
    Completions {
        /// The shell
        shell: clap_complete::Shell,
        /// Those of cangwd
        #[arg(long)]
        daemon: bool,
    },
    /// Write the man pages into a folder
    Man {
        /// The folder, which exists
        folder: std::path::PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub enum RuleCommand {
    /// List the rules, newest first
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a rule
    ///
    /// Without a target (-d) it drops frames (--drop), lets them pass the policy deny (--pass), or only records them (--watch).
    Add {
        #[command(flatten)]
        rule: RuleArgs,
        #[command(flatten)]
        options: Box<OptionArgs>,
        /// Frames forwarded from the source are not delivered to its local sockets
        #[arg(long)]
        exclusive: bool,
        /// Engine of the source interface
        #[arg(long, value_name = "ENGINE")]
        engine: Option<Engine>,
    },
    /// Delete the newest rule that is the same
    Delete {
        #[command(flatten)]
        rule: RuleArgs,
        #[command(flatten)]
        options: Box<OptionArgs>,
    },
    /// Say what would become of a frame
    ///
    /// The tables of the interface are compiled as for the kernel and looked up by the same code.
    Test {
        /// Interface on which the frame would come
        #[arg(short = 's', value_name = "IF", allow_hyphen_values = true)]
        source: String,
        /// The frame as in candump's logs: 123#DEADBEEF, 18FEF100#R, 123##1AABB for FD, 45123#81:00:12345678#AABB for XL
        #[arg(long, value_name = "FRAME")]
        frame: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Add the rules of a file, all or none
    ///
    /// The file is TOML as `cangw export --format toml` writes it, and then begins with `version = 1`; or it has a rule on each
    /// line, as options of `cangw -A` or `cangw rule add`, as `cangw -L` prints them or as `cangw export` writes them. Its settings are applied, too.
    Load {
        /// The file; - for standard input
        file: String,
    },
    /// Delete all rules
    Flush,
}

#[derive(Subcommand, Debug)]
pub enum InterfaceCommand {
    /// List the interfaces that have rules or settings
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change how the frames of an interface are handled
    Set {
        /// The interface
        #[arg(allow_hyphen_values = true)]
        interface: String,
        #[command(subcommand)]
        what: InterfaceSetting,
    },
}

#[derive(Subcommand, Debug)]
pub enum InterfaceSetting {
    /// Whether forwarded frames are kept from local sockets of the interface, which saves a copy
    Exclusive { value: Switch },
    /// The engine that forwards: tc does everything, xdp only unmodified frames of exclusive interfaces
    Engine { value: Engine },
    /// What becomes of frames that no rule names: allow lets them go on to local sockets, as can-gw does; deny drops them
    Policy { value: Policy },
}

impl InterfaceSetting {
    /// What changes.
    pub fn change(&self) -> InterfaceChange {
        let mut change = InterfaceChange::default();
        match *self {
            Self::Exclusive { value } => change.exclusive = Some(value.into()),
            Self::Engine { value } => change.engine = Some(value),
            Self::Policy { value } => change.policy = Some(value),
        }
        change
    }
}

#[derive(Subcommand, Debug)]
pub enum SettingsCommand {
    /// Show the settings
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// How often a frame is forwarded before it is deleted, 1 to 6; crossing a vxcan pair starts anew
    MaxHops {
        #[arg(value_parser = clap::value_parser!(u8).range(1..=6))]
        hops: u8,
    },
    /// Whether the programs log each frame that they forward
    Log { value: Switch },
    /// Back to the defaults
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `cangw` lines
    Script,
    /// TOML
    Toml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl From<Switch> for bool {
    fn from(switch: Switch) -> Self {
        switch == Switch::On
    }
}
