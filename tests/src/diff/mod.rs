//! The differential test: random rules and frames, given to the real can-gw, to a model of it, and to this project's gateway.

pub mod case;
pub mod contestant;
pub mod generate;
pub mod network;
pub mod rule;
pub mod shrink;
