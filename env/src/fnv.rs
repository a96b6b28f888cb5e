//! FNV-1a, the one hash that files and random streams hang on: short, and the same in every build, which the standard hasher does not promise.
//! It tells mishaps and names apart; it refuses to keep anybody out.

/// The hash of nothing, to begin from.
pub const START: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what `state` is the hash of, and these bytes after it.
pub fn fnv1a(state: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(state, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_values_come_out() {
        // From the reference code of Fowler, Noll and Vo (test_fnv.c).
        for (text, hash) in [("", START), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)] {
            assert_eq!(fnv1a(START, text.bytes()), hash, "{text}");
        }
    }
}
