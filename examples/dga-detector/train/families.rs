//! Domain generation algorithms, re-implemented from their public descriptions to have names to
//! learn from. Seeds are arbitrary, so these are not the names any malware ever used; where a
//! family hashes with MD5 or SHA-256, the trainer's random bytes stand in for the digest, which
//! is as even. Nothing here touches a network.

use crate::prng::Prng;
use crate::words::Lexicon;

mod random;
mod spoken;
mod wordy;

/// What a family's names look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Style {
    /// Letters or digits at random.
    Random,
    /// Pronounceable, or with a pronounceable part.
    Pronounceable,
    /// Words of a list.
    Words,
}

/// One campaign of a family: a seed and a date.
pub(crate) struct Campaign<'a> {
    prng: Prng,
    number: u64,
    words: &'a Lexicon,
}

impl<'a> Campaign<'a> {
    pub(crate) fn new(family: &Family, side: &str, number: u64, words: &'a Lexicon) -> Self {
        let prng = Prng::new(&format!("{} {side}", family.name), number);
        Self {
            prng,
            number,
            words,
        }
    }

    /// Year, month and day.
    fn date(&mut self) -> [u32; 3] {
        [(2009, 2026), (1, 12), (1, 28)]
            .map(|(low, high)| u32::try_from(self.prng.between(low, high)).unwrap_or(1))
    }

    fn key(&mut self) -> u32 {
        u32::try_from(self.prng.next() >> 32).unwrap_or(1)
    }

    fn top(&mut self, tops: &[&'static str]) -> &'static str {
        self.prng.pick::<&'static str>(tops)
    }
}

/// A family.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) style: Style,
    /// Whether the whole family is kept from training.
    pub(crate) unseen: bool,
    make: fn(&mut Campaign<'_>, usize) -> Vec<String>,
}

impl Family {
    /// The first `n` names of a campaign.
    pub(crate) fn names(&self, campaign: &mut Campaign<'_>, n: usize) -> Vec<String> {
        (self.make)(campaign, n)
    }
}

const fn seen(
    name: &'static str,
    style: Style,
    make: fn(&mut Campaign<'_>, usize) -> Vec<String>,
) -> Family {
    Family {
        name,
        style,
        unseen: false,
        make,
    }
}

const fn unseen(
    name: &'static str,
    style: Style,
    make: fn(&mut Campaign<'_>, usize) -> Vec<String>,
) -> Family {
    Family {
        name,
        style,
        unseen: true,
        make,
    }
}

/// All families.
pub(crate) const FAMILIES: &[Family] = &[
    seen("conficker", Style::Random, random::conficker),
    seen("kraken", Style::Random, random::kraken),
    seen("murofet", Style::Random, random::murofet),
    seen("cryptolocker", Style::Random, random::cryptolocker),
    seen("necurs", Style::Random, random::necurs),
    seen("ramnit", Style::Random, random::ramnit),
    seen("ranbyus", Style::Random, random::ranbyus),
    seen("tinba", Style::Random, random::tinba),
    seen("qakbot", Style::Random, random::qakbot),
    seen("locky", Style::Random, random::locky),
    seen("dyre", Style::Random, random::dyre),
    seen("corebot", Style::Random, random::corebot),
    seen("qadars", Style::Random, random::qadars),
    seen("simda", Style::Pronounceable, spoken::simda),
    seen("pykspa", Style::Pronounceable, spoken::pykspa),
    seen("vawtrak", Style::Pronounceable, spoken::vawtrak),
    seen("banjori", Style::Pronounceable, spoken::banjori),
    seen("suppobox", Style::Words, wordy::suppobox),
    seen("gozi", Style::Words, wordy::gozi),
    unseen("emotet", Style::Random, random::emotet),
    unseen("gameover", Style::Random, random::gameover),
    unseen("padcrypt", Style::Random, random::padcrypt),
    unseen("shiotob", Style::Random, random::shiotob),
    unseen("bamital", Style::Random, random::bamital),
    unseen("virut", Style::Random, random::virut),
    unseen("symmi", Style::Pronounceable, spoken::symmi),
    unseen("matsnu", Style::Words, wordy::matsnu),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::tests::made_up;
    use dga_detector::domain::chosen_label;

    #[test]
    fn every_family_makes_domain_names_and_repeats_itself() {
        let words = made_up();
        for family in FAMILIES {
            let make =
                |side, number| family.names(&mut Campaign::new(family, side, number, &words), 60);
            let names = make("train", 1);
            assert_eq!(names.len(), 60, "{}", family.name);
            assert_eq!(names, make("train", 1), "{}", family.name);
            assert_ne!(names, make("train", 2), "{}", family.name);
            assert_ne!(names, make("test", 1), "{}", family.name);
            for name in &names {
                let label = chosen_label(name).unwrap();
                assert!((4..=63).contains(&label.len()), "{}: {name}", family.name);
            }
        }
    }
}
