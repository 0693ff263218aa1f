//! A CAN gateway in eBPF: rules are compiled to tables, programs in the kernel look them up.

pub mod compile;
