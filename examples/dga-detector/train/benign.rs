//! Names as people choose them, composed from words.

use crate::prng::Prng;
use crate::words::Lexicon;

mod brand;
mod parts;

use brand::Chain;

type Maker = fn(&Composer<'_>, &mut Prng) -> String;

/// How sites are named, and how often out of all weights.
const KINDS: &[(&str, usize, Maker)] = &[
    ("word", 10, |c, r| r.pick(&c.words.everyday).clone()),
    ("rare word", 6, |c, r| r.pick(&c.words.wide).clone()),
    ("name", 5, |c, r| r.pick(&c.words.names).clone()),
    ("two words", 20, |c, r| c.everyday(r) + &c.everyday(r)),
    ("hyphenated", 4, |c, r| {
        format!("{}-{}", c.everyday(r), c.any(r))
    }),
    ("three words", 4, |c, r| {
        format!("{}{}{}", c.short(r), c.short(r), c.everyday(r))
    }),
    ("phrase", 4, parts::phrase),
    ("affix", 12, parts::affixed),
    ("with digits", 6, parts::with_digits),
    ("person", 6, parts::person),
    ("abbreviation", 6, parts::abbreviation),
    ("clipped", 6, parts::clipped),
    ("respelt", 7, brand::respelt),
    ("blend", 6, brand::blend),
    ("coined", 7, |c, r| c.chain.coin(r)),
    ("other language", 10, parts::foreign_word),
    ("other compound", 6, parts::foreign_compound),
    ("pinyin", 4, |_, r| parts::syllables(r, parts::PINYIN, 2, 4)),
    ("romaji", 3, |_, r| parts::syllables(r, parts::ROMAJI, 2, 5)),
    ("digits", 1, parts::digits),
];

/// Common top-level domains; the features do not look at them.
const TOPS: &[&str] = &[
    "com", "com", "com", "com", "org", "net", "de", "co.uk", "io", "fr", "info", "eu", "nl", "it",
];

/// Composes names from one side's words.
pub(crate) struct Composer<'a> {
    words: &'a Lexicon,
    chain: Chain,
}

impl<'a> Composer<'a> {
    pub(crate) fn new(words: &'a Lexicon) -> Self {
        let chain = Chain::new(words.everyday.iter().chain(&words.names));
        Self { words, chain }
    }

    /// The next name with the kind it is of.
    pub(crate) fn name(&self, prng: &mut Prng) -> (&'static str, String) {
        let total: usize = KINDS.iter().map(|(_, weight, _)| weight).sum();
        let mut at = prng.below(total);
        for &(kind, weight, make) in KINDS {
            if at < weight {
                let label: String = make(self, prng).chars().take(40).collect();
                let sub = if prng.chance(20) { "www." } else { "" };
                return (kind, format!("{sub}{label}.{}", prng.pick(TOPS)));
            }
            at -= weight;
        }
        ("word", String::new())
    }

    /// Names of all kinds.
    pub(crate) fn kinds() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|(kind, _, _)| *kind)
    }

    fn everyday(&self, prng: &mut Prng) -> String {
        prng.pick(&self.words.everyday).clone()
    }

    /// A common word of at most six letters, if a few tries find one.
    fn short(&self, prng: &mut Prng) -> String {
        let mut word = self.everyday(prng);
        for _ in 0..8 {
            if word.len() <= 6 {
                break;
            }
            word = self.everyday(prng);
        }
        word
    }

    /// A word or a name.
    fn any(&self, prng: &mut Prng) -> String {
        match prng.below(10) {
            0..6 => self.everyday(prng),
            6..8 => prng.pick(&self.words.wide).clone(),
            _ => prng.pick(&self.words.names).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::tests::made_up;
    use dga_detector::domain::chosen_label;

    #[test]
    fn every_name_is_a_domain_name_of_a_listed_kind() {
        let words = made_up();
        let composer = Composer::new(&words);
        let mut prng = Prng::new("names", 0);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..4000 {
            let (kind, name) = composer.name(&mut prng);
            seen.insert(kind);
            let label = chosen_label(&name).unwrap();
            assert!(!label.is_empty(), "{kind}: {name}");
        }
        assert_eq!(seen, Composer::kinds().collect());
    }
}
