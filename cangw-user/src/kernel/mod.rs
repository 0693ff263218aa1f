//! The kernel's side: links and filters by netlink, programs and maps by aya.

pub mod attr;
pub mod bpf;
pub mod btf;
pub mod can;
pub mod can_status;
pub mod clock;
pub mod fan_out;
pub mod filter;
pub mod gw;
pub mod hub;
pub mod link;
pub mod listeners;
pub mod maps;

pub mod neighbours;
pub mod netlink;
pub mod netns;
pub mod pins;
pub mod rule_counts;
pub mod sockets;
pub mod syscall;
pub(crate) mod table;
pub mod tap;
pub mod terminal;
pub mod words;
