//! A CAN gateway in eBPF: rules are compiled to tables, programs in the kernel look them up.
//!
//! [`gateway::Gateway`] is the entrance. docs/architecture.md follows a rule from the command line to the tables.

pub mod api;
mod as_text;
pub mod capability;
pub mod capture;
#[doc(hidden)]
pub mod cli;
pub mod compile;
pub mod containers;
mod counters;
pub mod daemon;
pub mod dbc;
pub mod error;
pub mod federation;
pub mod file;
mod folder;
pub mod frame_text;
pub mod gateway;
pub mod ids;
pub mod import;
pub mod kernel;
pub mod limits;
pub mod modify;
pub mod options;
pub mod reset;
pub mod rule;
pub mod state;
pub mod topology;
pub mod tunnel;
mod worker;

pub use error::{Error, Result};
