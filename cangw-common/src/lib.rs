//! Stub until written.
