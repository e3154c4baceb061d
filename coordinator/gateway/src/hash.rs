//! A quick hash for maps whose keys come from control and whose look-ups may come from anywhere: a client
//! that knew how it works could look up a name slowly, but cannot put one in.

use std::hash::{BuildHasher, Hasher};

/// FNV-1a, eight bytes at a time where there are eight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fnv(u64);

/// Makes [`Fnv`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quick;

const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Fnv {
    fn mix(&mut self, word: u64) {
        // The rotation brings the well mixed high bits down.
        self.0 = (self.0 ^ word).wrapping_mul(PRIME).rotate_left(29);
    }
}

impl BuildHasher for Quick {
    type Hasher = Fnv;

    fn build_hasher(&self) -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn finish(&self) -> u64 {
        // Tables take bits from both ends of the hash.
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_spread() {
        let low = |n: u32| Quick.hash_one(format!("service-{n}")) % 4096;
        let names: HashSet<u64> = (0..4000).map(low).collect();
        assert!(names.len() > 2300, "{}", names.len());
        let numbers: HashSet<u64> = (0..4000u64).map(|n| Quick.hash_one(n) >> 52).collect();
        assert!(numbers.len() > 2300, "{}", numbers.len());
    }
}
