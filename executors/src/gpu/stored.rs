//! Numbers on their way between the host, where they are f32, and buffers that store them otherwise. It refuses to allocate where
//! nothing has to be converted.

use crate::processor::Storage;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

/// Bytes of so many numbers in a buffer: a multiple of 4, as copies want them.
pub(super) fn bytes(storage: Storage, numbers: usize) -> usize {
    (storage.bytes() * numbers).next_multiple_of(4)
}

/// The bytes of `floats` in a buffer, in `room` where they are not those of the floats themselves. Rounded to the nearest; too large
/// ones become infinite.
pub(super) fn stored<'a>(storage: Storage, floats: &'a [f32], room: &'a mut Vec<u16>) -> &'a [u8] {
    match storage {
        Storage::F32 => bytemuck::cast_slice(floats),
        Storage::F16 => {
            room.clear();
            room.resize(floats.len().next_multiple_of(2), 0);
            room[..floats.len()].reinterpret_cast_mut::<f16>().convert_from_f32_slice(floats);
            bytemuck::cast_slice(room)
        }
    }
}

/// The numbers of a buffer; `from` holds at least as many as there is place in `to`.
pub(super) fn loaded(storage: Storage, from: &[u8], to: &mut [f32]) {
    let from = &from[..storage.bytes() * to.len()];
    match storage {
        Storage::F32 => bytemuck::cast_slice_mut::<f32, u8>(to).copy_from_slice(from),
        Storage::F16 => {
            let halves: &[u16] = bytemuck::cast_slice(from);
            halves.reinterpret_cast::<f16>().convert_to_f32_slice(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_there_and_back_within_the_precision_of_their_storage() {
        let floats = [0.0, -1.0, 1.0 / 3.0, 65504.0, 1e6, f32::NEG_INFINITY, 6e-8];
        for storage in [Storage::F32, Storage::F16] {
            let (mut room, mut back) = (Vec::new(), [0.0; 7]);
            let there = stored(storage, &floats, &mut room);
            assert_eq!(there.len(), bytes(storage, 7));
            loaded(storage, there, &mut back);
            let rounded = floats.map(|v| if storage == Storage::F16 { f16::from_f32(v).to_f32() } else { v });
            assert_eq!(back, rounded);
        }
        assert_eq!((bytes(Storage::F32, 3), bytes(Storage::F16, 3), bytes(Storage::F16, 4)), (12, 8, 8));
        let mut back = [0.0];
        loaded(Storage::F16, stored(Storage::F16, &[1e6], &mut Vec::new()), &mut back);
        assert_eq!(back, [f32::INFINITY]);
    }
}
