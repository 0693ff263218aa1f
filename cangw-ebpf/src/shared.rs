//! Variables that the programs share with userspace.

use core::cell::UnsafeCell;

/// A variable whose address the programs have, so that nothing is looked up. It has a section of its own, which becomes a map.
#[repr(transparent)]
pub struct Shared<T>(UnsafeCell<T>);

// SAFETY: whoever uses the address does so atomically or word by word (`word`, `counter`, `maps`).
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Zeroes, which `value` is.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Its address.
    #[inline(always)]
    pub const fn get(&self) -> *mut T {
        self.0.get()
    }
}
