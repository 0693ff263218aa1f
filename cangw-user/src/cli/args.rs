//! The options: help, man page and parsing come from this one definition.

use clap::{ArgAction, Args, Parser, Subcommand};

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
    Add {
        #[command(flatten)]
        rule: RuleArgs,
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
    },
    /// Add the rules of a file, all or none
    ///
    /// The file is TOML as `cangw export --format toml` writes it, and then begins with `version = 1`; or it has a rule on each
    /// line, as options of `cangw -A`, as `cangw -L` prints them or as `cangw export` writes them. Its settings are applied, too.
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
