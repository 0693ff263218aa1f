//! What the programs of virtual buses share with userspace.

/// Programs of the buses of one topology.
pub const MAX_HUBS: usize = 4096;
/// Longest name of a bus, in bytes.
pub const BUS_NAME: usize = 16;

/// What there is of a program that gives frames to the ports of a bus.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubProgram {
    /// Name of the bus, filled up with zeros.
    pub bus: [u8; BUS_NAME],
    /// Of which build of cangw it is.
    pub build: u64,
    /// Frames that some ports missed.
    pub lost: u64,
}
