//! Debian's word lists, split so that no word of the test names is seen in training.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::prng::Prng;

/// Everyday English, then all of English, then the other languages.
const EVERYDAY: &str = "american-english-small";
const ENGLISH: [&str; 2] = ["american-english", "british-english"];
const FOREIGN: [&str; 7] = [
    "ngerman",
    "french",
    "spanish",
    "italian",
    "dutch",
    "portuguese",
    "swedish",
];

/// A word list that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the word list {path} (train.sh installs them)")]
pub(crate) struct WordsError {
    path: PathBuf,
    source: std::io::Error,
}

/// Which side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Train,
    Valid,
    Test,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Valid => "valid",
            Part::Test => "test",
        }
    }

    /// By the first four letters, so that *walk*, *walker* and *walking* are on one side.
    pub(crate) fn of(word: &str) -> Self {
        let stem: String = word.chars().take(4).collect();
        match Prng::new(&stem, 0).below(100) {
            0..80 => Part::Train,
            80..85 => Part::Valid,
            _ => Part::Test,
        }
    }
}

/// A word list that was read, for the record.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) words: usize,
    pub(crate) crc32: String,
}

/// The words to build names from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lexicon {
    /// Common English words.
    pub(crate) everyday: Vec<String>,
    /// All English words.
    pub(crate) wide: Vec<String>,
    /// Names of people and places.
    pub(crate) names: Vec<String>,
    /// Other languages, one list each.
    pub(crate) foreign: Vec<Vec<String>>,
}

impl Lexicon {
    /// Reads the lists in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<(Self, Vec<Source>), WordsError> {
        let mut sources = Vec::new();
        let mut read = |name: &str| -> Result<String, WordsError> {
            let path = dir.join(name);
            let bytes = std::fs::read(&path).map_err(|source| WordsError { path, source })?;
            let text = decode(&bytes);
            sources.push(Source {
                name: name.to_owned(),
                words: text.lines().count(),
                crc32: format!("{:08x}", crc32fast::hash(&bytes)),
            });
            Ok(text)
        };
        let everyday = read(EVERYDAY)?;
        let mut lexicon = Self {
            everyday: collect(everyday.lines().filter(|w| !capital(w))),
            ..Self::default()
        };
        let mut english = String::new();
        for name in ENGLISH {
            english.push_str(&read(name)?);
        }
        lexicon.wide = collect(english.lines().filter(|w| !capital(w)));
        lexicon.names = collect(english.lines().filter(|w| capital(w)));
        for name in FOREIGN {
            lexicon.foreign.push(collect(read(name)?.lines()));
        }
        Ok((lexicon, sources))
    }

    /// The words on one side of the split.
    pub(crate) fn part(&self, part: Part) -> Self {
        let side = |words: &Vec<String>| -> Vec<String> {
            words
                .iter()
                .filter(|w| Part::of(w) == part)
                .cloned()
                .collect()
        };
        Self {
            everyday: side(&self.everyday),
            wide: side(&self.wide),
            names: side(&self.names),
            foreign: self.foreign.iter().map(side).collect(),
        }
    }
}

/// UTF-8, or else Latin-1 (Swedish).
fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&b| char::from(b)).collect(),
    }
}

fn capital(word: &str) -> bool {
    word.chars().next().is_some_and(char::is_uppercase)
}

/// Plain lower-case words of 2 to 14 letters, sorted, each once.
fn collect<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let set: BTreeSet<String> = words
        .filter_map(plain)
        .filter(|w| (2..=14).contains(&w.len()))
        .collect();
    set.into_iter().collect()
}

/// The word as it is written in a host name; none if it cannot be.
fn plain(word: &str) -> Option<String> {
    let mut out = String::with_capacity(word.len());
    for c in word.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' => out.push(c),
            'ä' => out.push_str("ae"),
            'ö' | 'ø' | 'œ' => out.push_str("oe"),
            'ü' => out.push_str("ue"),
            'ß' => out.push_str("ss"),
            'à' | 'á' | 'â' | 'ã' | 'å' => out.push('a'),
            'ç' => out.push('c'),
            'è' | 'é' | 'ê' | 'ë' => out.push('e'),
            'ì' | 'í' | 'î' | 'ï' => out.push('i'),
            'ñ' => out.push('n'),
            'ò' | 'ó' | 'ô' | 'õ' => out.push('o'),
            'ù' | 'ú' | 'û' => out.push('u'),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Made-up words, the same on every machine.
    pub(crate) fn made_up() -> Lexicon {
        let mut prng = Prng::new("made-up", 0);
        let mut list = |n: usize| -> Vec<String> {
            let words: BTreeSet<String> = (0..n)
                .map(|_| {
                    (0..prng.between(2, 4))
                        .map(|_| {
                            let onset = prng.letter(b"bcdfglmnprstvw");
                            format!("{onset}{}{}", prng.letter(b"aeiou"), prng.letter(b"lnrst"))
                        })
                        .collect()
                })
                .collect();
            words.into_iter().collect()
        };
        Lexicon {
            everyday: list(800),
            wide: list(1500),
            names: list(300),
            foreign: vec![list(500), list(500)],
        }
    }

    #[test]
    fn words_become_host_names() {
        assert_eq!(plain("Müßiggang").as_deref(), Some("muessiggang"));
        assert_eq!(plain("café").as_deref(), Some("cafe"));
        assert_eq!(plain("dog's"), None);
        assert_eq!(decode(b"f\xe5r"), "får");
    }

    #[test]
    fn the_sides_share_no_word_and_no_stem() {
        let lexicon = made_up();
        let [train, test] = [Part::Train, Part::Test].map(|p| lexicon.part(p));
        assert!(train.wide.len() > test.wide.len() && !test.wide.is_empty());
        for word in &test.wide {
            assert!(!train.wide.iter().any(|w| w[..4] == word[..4]), "{word}");
        }
    }
}
