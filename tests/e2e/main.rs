//! End-to-end tests, to be run one after the other (`--test-threads=1`) as root: see README.md.

mod clean;
mod drop_in;
