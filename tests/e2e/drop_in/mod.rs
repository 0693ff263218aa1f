//! The same script with can-utils' cangw over can-gw and with ours: both must look the same from outside.

mod cases;
mod compat;
mod errors;
mod frames;
mod hardware;
mod hops;
mod modify;
pub mod script;
