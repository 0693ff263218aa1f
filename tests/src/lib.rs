//! Fixtures of the end-to-end tests and of the demo: network namespaces, CAN sockets, frames, and the two `cangw`.
//!
//! Everything here panics when it cannot do its part, because a test that is not run must not look like one that passed.

pub mod backlog;
pub mod can_gw;
pub mod daemon;
pub mod diff;
pub mod docker;
pub mod frame;
pub mod keeper;
pub mod kernel;
pub mod lab;
pub mod model;
pub mod module;
pub mod namespace;
pub mod recording;
pub mod site;
pub mod socket;
pub mod sys;
pub mod tool;
