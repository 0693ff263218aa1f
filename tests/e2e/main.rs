//! End-to-end tests, to be run one after the other (`--test-threads=1`) as root: see README.md.

mod api;
mod buses;
mod capture;
mod clean;
mod daemon;
mod drop_in;
mod edits;
mod engines;
mod fan_out;
mod faults;
mod firewall;
mod flood;
mod import;
mod lifecycle;
mod limits;
mod listeners;
mod log;
mod many;
mod package;
mod signals;
mod timestamps;
mod top;
mod topologies;
mod verdicts;
mod watch;
mod xl;
