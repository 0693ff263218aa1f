//! The kernel's side: links and filters by netlink, programs and maps by aya.

pub mod attr;
pub mod bpf;
pub mod btf;
pub mod clock;
pub mod filter;
pub mod gw;
pub mod link;
pub mod listeners;
pub mod maps;
pub mod netlink;
pub mod pins;
mod syscall;
mod table;
pub mod terminal;
