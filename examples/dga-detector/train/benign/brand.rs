//! Invented brands: respelt words, blends, and words coined letter by letter.

use std::collections::BTreeMap;

use super::Composer;
use crate::prng::Prng;

const VOWELS: &[u8] = b"aeiou";

fn vowel(b: u8) -> bool {
    VOWELS.contains(&b)
}

/// `flickr`, `krispy`, `digg`, `lyft`.
pub(super) fn respelt(c: &Composer<'_>, prng: &mut Prng) -> String {
    let word = if prng.chance(60) {
        c.short(prng)
    } else {
        c.any(prng)
    };
    let new = match prng.below(7) {
        0 => word.strip_suffix("er").map(|stem| format!("{stem}r")),
        1 => Some(drop_vowels(&word, prng)),
        2 => swap(&word, prng),
        3 => Some(double(&word, prng)),
        4 => Some(format!(
            "{word}{}",
            prng.pick(&["o", "a", "i", "ia", "io", "oo", "x", "z", "r"])
        )),
        5 => Some(format!(
            "{}{word}",
            prng.pick(&["x", "z", "q", "v", "k", "u", "o"])
        )),
        _ => Some(word.chars().rev().collect()).filter(|_| word.len() <= 5),
    };
    let name = new.unwrap_or_else(|| drop_vowels(&word, prng));
    if prng.chance(25) {
        name + &c.short(prng)
    } else {
        name
    }
}

/// Leaves out some vowels that are not at an end.
fn drop_vowels(word: &str, prng: &mut Prng) -> String {
    let last = word.len().saturating_sub(1);
    word.bytes()
        .enumerate()
        .filter(|&(i, b)| i == 0 || i == last || !vowel(b) || prng.chance(35))
        .map(|(_, b)| char::from(b))
        .collect()
}

fn swap(word: &str, prng: &mut Prng) -> Option<String> {
    let swaps = [
        ("c", "k"),
        ("ck", "x"),
        ("cks", "x"),
        ("s", "z"),
        ("i", "y"),
        ("f", "ph"),
        ("ee", "ea"),
        ("qu", "kw"),
        ("ks", "x"),
        ("oo", "u"),
        ("er", "r"),
        ("c", "q"),
        ("i", "ii"),
        ("e", "3"),
        ("o", "0"),
        ("g", "j"),
    ];
    let (from, to) = *prng.pick(&swaps);
    word.contains(from).then(|| word.replacen(from, to, 1))
}

/// Doubles one letter.
fn double(word: &str, prng: &mut Prng) -> String {
    let at = prng.below(word.len());
    let mut out = word.to_owned();
    if let Some(c) = word[at..].chars().next() {
        out.insert(at, c);
    }
    out
}

/// `microsoft`, `netflix`: the front of one word and the back of another.
pub(super) fn blend(c: &Composer<'_>, prng: &mut Prng) -> String {
    let (first, second) = (c.any(prng), c.any(prng));
    let front = prng.between(2, 5).min(first.len());
    let back = prng.between(2, 6).min(second.len());
    format!("{}{}", &first[..front], &second[second.len() - back..])
}

/// A Markov chain over three letters: words that do not exist and might.
pub(super) struct Chain {
    /// What follows each three letters; 0 stands for the end.
    next: BTreeMap<[u8; 3], Vec<u8>>,
    starts: Vec<[u8; 3]>,
}

impl Chain {
    pub(super) fn new<'w>(words: impl Iterator<Item = &'w String>) -> Self {
        let mut chain = Self {
            next: BTreeMap::new(),
            starts: Vec::new(),
        };
        for word in words.filter(|w| w.len() >= 5) {
            let bytes = word.as_bytes();
            for (i, window) in bytes.windows(3).enumerate() {
                let key = [window[0], window[1], window[2]];
                if i == 0 {
                    chain.starts.push(key);
                }
                let next = bytes.get(i + 3).copied().unwrap_or(0);
                chain.next.entry(key).or_default().push(next);
            }
        }
        chain
    }

    /// A coined word of 4 to 11 letters.
    pub(super) fn coin(&self, prng: &mut Prng) -> String {
        let mut word = prng.pick(&self.starts).to_vec();
        while word.len() < 11 {
            let key = [
                word[word.len() - 3],
                word[word.len() - 2],
                word[word.len() - 1],
            ];
            match self.next.get(&key).map(|next| *prng.pick(next)) {
                Some(0) | None if word.len() >= 4 => break,
                Some(0) | None => word.push(*prng.pick(VOWELS)),
                Some(letter) => word.push(letter),
            }
        }
        word.into_iter().map(char::from).collect()
    }
}
