//! Arrays that are filled before anybody else sees them, and never changed: by memory, so that only what is needed is touched.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Pod;
use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use memmap2::MmapOptions;

use super::bpf::failed;
use crate::error::{Error, Result};

/// `BPF_F_MMAPABLE`, Linux 5.5.
pub const MMAPABLE: u32 = 1 << 10;

/// The bytes of a value.
pub fn bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: who implements Pod promises that the value may be converted to bytes; they live as long as it does.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

/// Creates an array with the flags and [`MMAPABLE`], each value beginning with the given bytes and ending in zeroes.
///
/// # Errors
/// When memory is short.
///
/// # Panics
/// When bytes are longer than a value.
pub fn array<'a, T: Pod>(
    values: impl ExactSizeIterator<Item = &'a [u8]>,
    flags: u32,
) -> Result<MapData> {
    let map = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<T>() as u32,
        values.len() as u32,
        flags | MMAPABLE,
    );
    let map = MapData::create(map, "", None).map_err(failed("create a table"))?;
    let io = |e| Error::io("fill a table", e);
    // `array_map_alloc` puts values at multiples of 8 bytes.
    let distance = size_of::<T>().next_multiple_of(8);
    let len = distance * values.len();
    // SAFETY: nobody else has the map: it was created above, and it is given away after the mapping has ended.
    let mut memory = unsafe {
        MmapOptions::new()
            .len(len)
            .map_mut(map.fd().as_fd().as_raw_fd())
    }
    .map_err(io)?;
    for (to, from) in memory.chunks_exact_mut(distance).zip(values) {
        to[..from.len()].copy_from_slice(from);
    }
    drop(memory);
    Ok(map)
}

/// The values of an array that [`array`] made, one behind the other, up to the length that `wanted` makes of the first 8 bytes,
/// or all of them; `None` when the array has another size of values.
///
/// # Errors
/// When memory is short.
pub fn read<T: Pod>(map: &MapData, wanted: impl Fn(u64) -> u64) -> Result<Option<Vec<u8>>> {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let info = map.info().map_err(failed("read a table"))?;
    if info.value_size() as usize != size_of::<T>() {
        return Ok(None);
    }
    let len = size_of::<T>() * info.max_entries() as usize;
    let memory = MmapOptions::new()
        .len(len)
        .map_raw_read_only(map.fd().as_fd().as_raw_fd())
        .map_err(|e| Error::io("read a table", e))?;
    let mut first = [0; 8];
    // SAFETY: the mapping has one value at least, of 8 bytes at least; bytes have no invalid values.
    unsafe {
        memory
            .as_ptr()
            .copy_to_nonoverlapping(first.as_mut_ptr(), 8)
    };
    let len = wanted(u64::from_ne_bytes(first)).min(len as u64) as usize;
    let mut bytes = vec![0; len];
    // SAFETY: the mapping has `len` bytes or more, and so has the vector.
    unsafe {
        memory
            .as_ptr()
            .copy_to_nonoverlapping(bytes.as_mut_ptr(), len)
    };
    Ok(Some(bytes))
}
