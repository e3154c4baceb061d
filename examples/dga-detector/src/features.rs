//! Features of a label: character n-grams and its shape, hashed into a table of a power of two.
//!
//! Top-level domain and sub-domains are left out on purpose: how common each is among good names
//! would be an invention of the training data, and the model would learn the invention.

use crate::math::log2;

/// Raised whenever the same label would give other features; a model file names the version that
/// it was trained with.
pub const VERSION: u32 = 1;

/// Longest n-gram.
const LONGEST: usize = 4;

/// Kinds of features below the n-grams' (which are 1 to 4 and, crossed with length, 17 to 19).
mod kind {
    pub(super) const CROSSED: u64 = 16;
    pub(super) const LENGTH: u64 = 32;
    pub(super) const VOWELS: u64 = 33;
    pub(super) const DIGITS: u64 = 34;
    pub(super) const ENTROPY: u64 = 35;
    pub(super) const DISTINCT: u64 = 36;
    pub(super) const CONSONANT_RUN: u64 = 37;
    pub(super) const DIGIT_RUN: u64 = 38;
    pub(super) const SWITCHES: u64 = 39;
    pub(super) const HYPHENS: u64 = 40;
    pub(super) const HEXADECIMAL: u64 = 41;
    pub(super) const ALTERNATION: u64 = 42;
}

/// Puts the feature indices of `label` into `out` (cleared first), each below `2^bits`. An index
/// may come more than once. Any bytes will do; an empty label has no features.
pub fn extract(label: &[u8], bits: u32, out: &mut Vec<u32>) {
    out.clear();
    if label.is_empty() {
        return;
    }
    let mask = (1_u64 << bits.min(31)) - 1;
    let mut sink = Sink { mask, out };
    let regime = regime(label.len());
    let mut marked = Vec::with_capacity(label.len() + 2);
    marked.push(b'^');
    marked.extend_from_slice(label);
    marked.push(b'$');
    for n in 1..=LONGEST {
        let text = if n == 1 { label } else { &marked[..] };
        for gram in text.windows(n) {
            let key = pack(gram);
            sink.add(n as u64, key);
            if n < LONGEST {
                sink.add(kind::CROSSED + n as u64, key << 8 | regime);
            }
        }
    }
    shape(label, regime, &mut sink);
}

/// Four classes of length; the same letters mean more in a short name.
fn regime(length: usize) -> u64 {
    match length {
        0..=7 => 0,
        8..=11 => 1,
        12..=17 => 2,
        _ => 3,
    }
}

/// Up to four bytes in one number.
fn pack(gram: &[u8]) -> u64 {
    gram.iter().fold(0, |key, &b| key << 8 | u64::from(b))
}

struct Sink<'a> {
    mask: u64,
    out: &'a mut Vec<u32>,
}

impl Sink<'_> {
    #[allow(clippy::cast_possible_truncation, reason = "masked to 31 bits")]
    fn add(&mut self, kind: u64, key: u64) {
        // The finaliser of SplitMix64.
        let mut x = (key << 8 | kind).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        self.out.push((x & self.mask) as u32);
    }
}

/// Counts over the whole label, each crossed with length where it only means something so.
fn shape(label: &[u8], regime: u64, sink: &mut Sink<'_>) {
    let length = label.len() as u64;
    let counts = Counts::of(label);
    let share = |n: u64| n * 10 / length;
    sink.add(kind::LENGTH, length.min(40));
    sink.add(kind::VOWELS, share(counts.vowels) << 8 | length.min(24));
    sink.add(kind::DIGITS, share(counts.digits) << 8 | regime);
    sink.add(kind::DIGITS, 1 << 16 | counts.digits.min(12));
    sink.add(kind::ENTROPY, entropy(label) << 8 | length.min(32));
    sink.add(kind::DISTINCT, counts.distinct << 8 | length.min(32));
    sink.add(
        kind::CONSONANT_RUN,
        counts.consonant_run.min(10) << 8 | regime,
    );
    sink.add(kind::DIGIT_RUN, counts.digit_run.min(8) << 8 | regime);
    sink.add(kind::SWITCHES, counts.switches.min(10) << 8 | regime);
    sink.add(kind::HYPHENS, counts.hyphens.min(3));
    sink.add(
        kind::ALTERNATION,
        share(counts.alternations) << 8 | length.min(24),
    );
    if label.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        sink.add(kind::HEXADECIMAL, length.min(32));
    }
}

/// Shannon entropy of the bytes, in quarters of a bit.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 8 bits"
)]
fn entropy(label: &[u8]) -> u64 {
    let mut counts = [0_u32; 256];
    for &b in label {
        counts[usize::from(b)] += 1;
    }
    let total = f64::from(u32::try_from(label.len()).unwrap_or(u32::MAX));
    let sum: f64 = counts
        .iter()
        .filter(|&&n| n > 1)
        .map(|&n| f64::from(n) * log2(n))
        .sum();
    let bits = log2(u32::try_from(label.len()).unwrap_or(u32::MAX)) - sum / total;
    (bits * 4.0 + 1e-6) as u64
}

#[derive(Default)]
struct Counts {
    vowels: u64,
    digits: u64,
    hyphens: u64,
    distinct: u64,
    consonant_run: u64,
    digit_run: u64,
    /// Changes between letters and digits.
    switches: u64,
    /// Changes between vowels and consonants.
    alternations: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Vowel,
    Consonant,
    Digit,
    Other,
}

fn class(b: u8) -> Class {
    match b {
        b'a' | b'e' | b'i' | b'o' | b'u' | b'y' => Class::Vowel,
        b'a'..=b'z' => Class::Consonant,
        b'0'..=b'9' => Class::Digit,
        _ => Class::Other,
    }
}

impl Counts {
    fn of(label: &[u8]) -> Self {
        let mut counts = Self::default();
        let mut seen = [false; 256];
        let mut before = None;
        let mut run = 0;
        for &b in label {
            let now = class(b);
            counts.distinct += u64::from(!std::mem::replace(&mut seen[usize::from(b)], true));
            run = if before == Some(now) { run + 1 } else { 1 };
            match now {
                Class::Vowel => counts.vowels += 1,
                Class::Consonant => counts.consonant_run = counts.consonant_run.max(run),
                Class::Digit => {
                    counts.digits += 1;
                    counts.digit_run = counts.digit_run.max(run);
                }
                Class::Other => counts.hyphens += 1,
            }
            if let Some(before) = before.filter(|&c| c != now) {
                let letters = before != Class::Digit && now != Class::Digit;
                counts.alternations += u64::from(letters);
                counts.switches += u64::from(!letters);
            }
            before = Some(now);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn features(label: &[u8], bits: u32) -> Vec<u32> {
        let mut out = Vec::new();
        extract(label, bits, &mut out);
        out
    }

    /// Changing features without raising `VERSION` would read old model files wrongly.
    #[test]
    fn features_of_this_version_are_these() {
        let mut hasher = crc32fast::Hasher::new();
        for label in [
            "wikipedia",
            "xjwq7f2kd9",
            "a",
            "long-name-with-4-hyphens",
            "deadbeef",
        ] {
            for index in features(label.as_bytes(), 18) {
                hasher.update(&index.to_le_bytes());
            }
        }
        assert_eq!((VERSION, hasher.finalize()), (1, 2_554_087_753));
    }

    #[test]
    fn an_empty_label_has_none() {
        assert!(features(b"", 18).is_empty());
    }

    #[test]
    fn entropy_in_quarter_bits() {
        assert_eq!(entropy(b"aaaaaaaa"), 0);
        assert_eq!(entropy(b"abababab"), 4);
        assert_eq!(entropy(b"abcdefgh"), 12);
    }

    proptest! {
        #[test]
        fn any_bytes_stay_in_the_table(label in proptest::collection::vec(any::<u8>(), 0..300),
                                       bits in 1_u32..20) {
            let first = features(&label, bits);
            prop_assert!(first.iter().all(|&i| i < 1 << bits));
            prop_assert_eq!(first, features(&label, bits));
        }
    }
}
