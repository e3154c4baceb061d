//! Whatever happens to the bytes, a reader never panics and never returns a frame that was not written.

use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::frame::{Frame, Frames, Stream};
use crate::mirror::Mirror;
use crate::segment::{path_of, recover};
use crate::tail::{Tail, TailReader};
use crate::writer::{SegmentWriter, WriterLimits};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    time: u64,
    stream: Stream,
    process: u8,
    flags: u8,
    payload: Vec<u8>,
}

impl Owned {
    fn frame(&self) -> Frame<'_> {
        let Self {
            time,
            stream,
            process,
            flags,
            payload,
        } = self;
        Frame {
            time: *time,
            stream: *stream,
            process: *process,
            flags: *flags,
            payload,
        }
    }

    fn of(frame: Frame<'_>) -> Self {
        let Frame {
            time,
            stream,
            process,
            flags,
            payload,
        } = frame;
        Self {
            time,
            stream,
            process,
            flags,
            payload: payload.to_vec(),
        }
    }
}

fn owned() -> impl Strategy<Value = Owned> {
    (
        any::<u64>(),
        1..=255u8,
        any::<u8>(),
        0..=1u8,
        vec(any::<u8>(), 0..200),
    )
        .prop_map(|(time, stream, process, flags, payload)| Owned {
            time,
            stream: Stream::from_byte(stream).unwrap(),
            process,
            flags,
            payload,
        })
}

fn encode(frames: &[Owned]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.frame().encode(&mut bytes);
    }
    bytes
}

/// The frames read until the first error.
fn decode(bytes: &[u8]) -> Vec<Owned> {
    Frames::new(bytes)
        .map_while(Result::ok)
        .map(|(_, frame)| Owned::of(frame))
        .collect()
}

fn read_all(tail: &mut TailReader) -> Vec<u8> {
    let mut all = Vec::new();
    while let Tail::Frames { bytes, .. } = tail.read(1).unwrap() {
        all.extend(bytes);
    }
    all
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frames in vec(owned(), 0..20)) {
        prop_assert_eq!(decode(&encode(&frames)), frames);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..500)) {
        let _ = Frames::new(&bytes).check();
    }

    #[test]
    fn a_truncated_log_is_a_prefix(frames in vec(owned(), 1..10), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&frames);
        let cut = cut.index(bytes.len());
        let read = decode(&bytes[..cut]);
        prop_assert!(read.len() < frames.len());
        prop_assert_eq!(&read[..], &frames[..read.len()]);

        let dir = tempfile::tempdir().unwrap();
        fs::write(path_of(dir.path(), 0), &bytes[..cut]).unwrap();
        prop_assert_eq!(read_all(&mut TailReader::new(dir.path(), 0)), encode(&read));
        let recovered = recover(dir.path()).unwrap();
        prop_assert_eq!(recovered.end, encode(&read).len() as u64);
        prop_assert_eq!(recovered.cut, cut as u64 - recovered.end);
    }

    #[test]
    fn flipped_bits_end_the_log_and_change_nothing(
        frames in vec(owned(), 1..10),
        flips in vec((any::<prop::sample::Index>(), 0..8u8), 1..4),
    ) {
        let good = encode(&frames);
        let mut bytes = good.clone();
        for (index, bit) in flips {
            bytes[index.index(good.len())] ^= 1 << bit;
        }
        let read = decode(&bytes);
        prop_assert_eq!(&read[..], &frames[..read.len()]);
        // Unless the flips undid each other, the frame that was hit is not returned.
        prop_assert_eq!(read.len() == frames.len(), bytes == good);
    }
}

proptest! {
    // Each case syncs to disk many times.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_mirror_equals_its_source_over_crashes(
        batches in vec(vec(owned(), 1..6), 1..12),
        segment in 1..2000u64,
        mirror_segment in 1..2000u64,
        torn in vec(any::<u8>(), 0..30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let limits = WriterLimits { segment_bytes: segment, budget_bytes: 1 << 30 };
        let mut written = Vec::new();
        for batch in &batches {
            // The writer and the mirror are both opened anew each time, as after crashes.
            let mut writer = SegmentWriter::open(&from, limits).unwrap();
            for frame in batch {
                prop_assert_eq!(writer.append(&frame.frame()), Ok(written.len() as u64));
                frame.frame().encode(&mut written);
            }
            writer.flush().unwrap();
            let mut mirror = Mirror::open(&to, mirror_segment).unwrap();
            let mut tail = TailReader::new(&from, mirror.length());
            while let Tail::Frames { offset, bytes } = tail.read(1).unwrap() {
                mirror.append(offset, &bytes).unwrap();
            }
            prop_assert_eq!(mirror.sync().unwrap(), written.len() as u64);
            let last = crate::segments(&to).unwrap().pop().unwrap();
            let tail = [fs::read(&last.path).unwrap(), torn.clone()].concat();
            if decode(&tail).len() == decode(&fs::read(&last.path).unwrap()).len() {
                fs::write(&last.path, tail).unwrap();
            }
        }
        recover(&to).unwrap();
        prop_assert_eq!(read_all(&mut TailReader::new(&to, 0)), written);
    }
}
