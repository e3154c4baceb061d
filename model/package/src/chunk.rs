//! Content-defined chunks of a stream: FastCDC as published in 2020, fed slice by slice.
//!
//! The cut points are exactly those of the `fastcdc` crate's `v2020` with normalisation level 1 (a
//! test compares them). That crate needs a whole chunk in one buffer; here nothing is copied.

use fastcdc::v2020::{MASKS, get_gear_with_seed};

use crate::index::Chunk;

/// Least bytes of a chunk, unless the file ends.
pub const CHUNK_MIN: u32 = 256 << 10;
/// FastCDC's "average", which sets how hard a cut is to find. It is not searched for below
/// [`CHUNK_MIN`]; as that is as large, chunks of noise have 384 KiB on average and a third of all bytes
/// is looked at, which is what keeps chunking cheap.
pub const CHUNK_AVERAGE: u32 = 256 << 10;
/// Most bytes of a chunk.
pub const CHUNK_MAX: u32 = 1 << 20;

/// Masks of level 1: a bit more than log2 of the average before it is reached, a bit less after.
const BITS: usize = CHUNK_AVERAGE.ilog2() as usize;
const MASK_SMALL: u64 = MASKS[BITS + 1];
const MASK_LARGE: u64 = MASKS[BITS - 1];

/// The gear tables, for one byte and for the first of two.
pub(crate) struct Gear {
    one: Box<[u64; 256]>,
    two: Box<[u64; 256]>,
}

impl Gear {
    pub(crate) fn new() -> Self {
        let (one, two) = get_gear_with_seed(0);
        Self { one, two }
    }

    /// Rolls over `data`; the offset of the byte at which the masked hash is zero.
    fn scan(&self, hash: &mut u64, data: &[u8], mask: u64) -> Option<usize> {
        let mut rolling = *hash;
        // Two bytes a step: the shift by two shortens the chain of dependent operations.
        let (pairs, last) = data.as_chunks::<2>();
        for (at, [first, second]) in pairs.iter().enumerate() {
            rolling = (rolling << 2).wrapping_add(self.two[usize::from(*first)]);
            if rolling & (mask << 1) == 0 {
                return Some(at * 2);
            }
            rolling = rolling.wrapping_add(self.one[usize::from(*second)]);
            if rolling & mask == 0 {
                return Some(at * 2 + 1);
            }
        }
        if let [byte] = last {
            rolling = (rolling << 1).wrapping_add(self.one[usize::from(*byte)]);
            if rolling & mask == 0 {
                return Some(data.len() - 1);
            }
        }
        *hash = rolling;
        None
    }
}

/// Cuts one file into chunks and hashes both.
pub(crate) struct FileHasher {
    /// Bytes of the file after the current chunk's start.
    remaining: u64,
    /// Bytes of the current chunk seen.
    seen: u64,
    rolling: u64,
    whole: blake3::Hasher,
    chunk: blake3::Hasher,
    chunks: Vec<Chunk>,
    /// A file that cannot be cut has one chunk, itself: it is hashed once.
    single: bool,
}

impl FileHasher {
    /// For a file of `size` bytes.
    pub(crate) fn new(size: u64) -> Self {
        Self {
            remaining: size,
            seen: 0,
            rolling: 0,
            whole: blake3::Hasher::new(),
            chunk: blake3::Hasher::new(),
            chunks: Vec::new(),
            single: size <= u64::from(CHUNK_MIN),
        }
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, gear: &Gear, mut data: &[u8]) {
        self.whole.update(data);
        while !self.single && !data.is_empty() {
            let limit = self.remaining.min(u64::from(CHUNK_MAX));
            let taken = self.advance(gear, data, limit);
            self.chunk.update(&data[..taken.bytes]);
            self.seen += taken.bytes as u64;
            data = &data[taken.bytes..];
            if taken.cut || self.seen >= limit {
                self.close();
            }
        }
        if self.single {
            self.seen += data.len() as u64;
        }
    }

    /// How many of the bytes belong to the current chunk, whose greatest length is `limit`.
    fn advance(&mut self, gear: &Gear, data: &[u8], limit: u64) -> Taken {
        let room = clamp(limit - self.seen, data.len());
        // The reference looks at pairs, so that an odd last byte never makes a cut.
        let judged = if self.remaining <= u64::from(CHUNK_MIN) {
            0
        } else {
            limit & !1
        };
        let mut at = clamp(u64::from(CHUNK_MIN).saturating_sub(self.seen), room);
        for (end, mask) in [
            (judged.min(u64::from(CHUNK_AVERAGE)), MASK_SMALL),
            (judged, MASK_LARGE),
        ] {
            let stop = clamp(end.saturating_sub(self.seen), room);
            if at < stop {
                if let Some(cut) = gear.scan(&mut self.rolling, &data[at..stop], mask) {
                    return Taken {
                        bytes: at + cut,
                        cut: true,
                    };
                }
                at = stop;
            }
        }
        Taken {
            bytes: room,
            cut: false,
        }
    }

    fn close(&mut self) {
        // At most CHUNK_MAX, so it fits.
        let length = u32::try_from(self.seen).unwrap_or(CHUNK_MAX);
        self.chunks.push(Chunk {
            length,
            hash: self.chunk.finalize(),
        });
        self.chunk.reset();
        self.remaining -= self.seen;
        self.seen = 0;
        self.rolling = 0;
    }

    /// The file's hash and chunks.
    pub(crate) fn finish(mut self) -> (blake3::Hash, Vec<Chunk>) {
        let hash = self.whole.finalize();
        if self.single && self.seen > 0 {
            let length = u32::try_from(self.seen).unwrap_or(CHUNK_MIN);
            self.chunks.push(Chunk { length, hash });
        }
        (hash, self.chunks)
    }
}

struct Taken {
    bytes: usize,
    cut: bool,
}

fn clamp(wanted: u64, most: usize) -> usize {
    usize::try_from(wanted).map_or(most, |wanted| wanted.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastcdc::v2020::{FastCDC, Normalization};
    use proptest::prelude::*;

    fn reference(data: &[u8]) -> Vec<u32> {
        FastCDC::with_level(
            data,
            CHUNK_MIN,
            CHUNK_AVERAGE,
            CHUNK_MAX,
            Normalization::Level1,
        )
        .map(|chunk| u32::try_from(chunk.length).unwrap())
        .collect()
    }

    fn streamed(data: &[u8], piece: usize) -> (blake3::Hash, Vec<Chunk>) {
        let gear = Gear::new();
        let mut hasher = FileHasher::new(data.len() as u64);
        for slice in data.chunks(piece) {
            hasher.update(&gear, slice);
        }
        hasher.finish()
    }

    /// Reproducible bytes: noise, with runs that compress.
    fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut data);
        if seed.is_multiple_of(3) && length > 10 {
            let third = length / 3;
            data[third..2 * third].fill(0);
        }
        data
    }

    fn compare(data: &[u8], piece: usize) {
        let (hash, chunks) = streamed(data, piece);
        assert_eq!(hash, blake3::hash(data));
        let lengths: Vec<u32> = chunks.iter().map(|chunk| chunk.length).collect();
        assert_eq!(lengths, reference(data), "{} bytes by {piece}", data.len());
        let mut at = 0;
        for chunk in chunks {
            let end = at + chunk.length as usize;
            assert_eq!(chunk.hash, blake3::hash(&data[at..end]));
            at = end;
        }
        assert_eq!(at, data.len());
    }

    #[test]
    fn sizes_at_the_edges_cut_as_the_reference_does() {
        for edge in [CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX] {
            for size in [edge - 1, edge, edge + 1] {
                compare(&bytes(1, size as usize), 1 << 16);
            }
        }
        compare(&[], 1);
        compare(&vec![0; 5 << 20], 777_777);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_stream_cuts_as_the_reference_does(
            seed: u64,
            length in 0..4_000_000usize,
            piece in 1_000..2_000_000usize,
        ) {
            compare(&bytes(seed, length), piece);
        }
    }
}
