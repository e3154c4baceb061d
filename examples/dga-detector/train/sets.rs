//! The labelled names: for training, for choosing the operating point, and held out.

use std::collections::HashSet;

use dga_detector::domain::chosen_label;

use crate::benign::Composer;
use crate::families::{Campaign, FAMILIES, Family};
use crate::prng::Prng;
use crate::words::{Lexicon, Part};

/// How many names of each sort.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) benign: [usize; 3],
    /// Per family.
    pub(crate) family: [usize; 3],
}

/// What the committed model is trained with.
pub(crate) const FULL: Sizes = Sizes {
    benign: [800_000, 100_000, 100_000],
    family: [30_000, 3_000, 4_000],
};

fn index(part: Part) -> usize {
    match part {
        Part::Train => 0,
        Part::Valid => 1,
        Part::Test => 2,
    }
}

/// A group of labels of one origin: a kind of benign names, or a family.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) labels: Vec<String>,
}

/// One side of the split.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) benign: Vec<Group>,
    /// In the order of [`FAMILIES`]; those unseen in training are empty but on the test side.
    pub(crate) families: Vec<Group>,
}

impl Side {
    /// Every label on `side`, none of which is in `taken`; each becomes taken.
    pub(crate) fn make(part: Part, lexicon: &Lexicon, sizes: Sizes, taken: &mut Taken) -> Self {
        let benign = benign(part, &lexicon.part(part), sizes.benign[index(part)], taken);
        let families = FAMILIES
            .iter()
            .map(|family| {
                let wanted = !family.unseen || part == Part::Test;
                let n = if wanted { sizes.family[index(part)] } else { 0 };
                let labels = campaigns(family, part, lexicon, n, taken);
                Group {
                    name: family.name,
                    labels,
                }
            })
            .collect();
        Self { benign, families }
    }

    pub(crate) fn benign_count(&self) -> usize {
        self.benign.iter().map(|group| group.labels.len()).sum()
    }

    pub(crate) fn dga_count(&self) -> usize {
        self.families.iter().map(|group| group.labels.len()).sum()
    }
}

/// Labels already used, so that no side holds what another holds. A label may be on the benign
/// and the generated side both: such collisions are real.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    benign: HashSet<String>,
    dga: HashSet<String>,
}

fn benign(part: Part, words: &Lexicon, n: usize, taken: &mut Taken) -> Vec<Group> {
    let mut groups: Vec<Group> = Composer::kinds()
        .map(|name| Group {
            name,
            labels: Vec::new(),
        })
        .collect();
    let composer = Composer::new(words);
    let mut prng = Prng::new("benign", index(part) as u64);
    let mut made = 0;
    // Short kinds run dry; the bound ends the search where words are few.
    for _ in 0..n * 4 {
        if made == n {
            break;
        }
        let (kind, name) = composer.name(&mut prng);
        let Some(label) = fresh(&name, &mut taken.benign) else {
            continue;
        };
        if let Some(group) = groups.iter_mut().find(|group| group.name == kind) {
            group.labels.push(label);
            made += 1;
        }
    }
    groups
}

/// Names of one campaign; many campaigns make a side.
const CAMPAIGN: usize = 100;

fn campaigns(
    family: &Family,
    part: Part,
    words: &Lexicon,
    n: usize,
    taken: &mut Taken,
) -> Vec<String> {
    let mut labels = Vec::with_capacity(n);
    let most = n.div_ceil(CAMPAIGN) as u64 * 4;
    for number in 0..most {
        let mut campaign = Campaign::new(family, part.name(), number, words);
        for name in family.names(&mut campaign, CAMPAIGN) {
            if labels.len() < n {
                labels.extend(fresh(&name, &mut taken.dga));
            }
        }
        if labels.len() == n {
            break;
        }
    }
    labels
}

fn fresh(name: &str, taken: &mut HashSet<String>) -> Option<String> {
    let label = chosen_label(name).ok().filter(|label| label.len() >= 2)?;
    taken.insert(label.clone()).then_some(label)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::words::tests::made_up;

    pub(crate) const SMALL: Sizes = Sizes {
        benign: [3_000, 600, 600],
        family: [150, 30, 30],
    };

    #[test]
    fn sides_share_no_name_and_unseen_families_stay_unseen() {
        let (lexicon, mut taken) = (made_up(), Taken::default());
        let [train, test] =
            [Part::Train, Part::Test].map(|part| Side::make(part, &lexicon, SMALL, &mut taken));
        let all = |side: &Side| -> HashSet<String> {
            let groups = side.families.iter().chain(&side.benign);
            groups.flat_map(|group| group.labels.clone()).collect()
        };
        let benign = |side: &Side| -> HashSet<String> {
            side.benign
                .iter()
                .flat_map(|group| group.labels.clone())
                .collect()
        };
        assert!(benign(&train).is_disjoint(&benign(&test)));
        assert!(all(&train).len() > 4_000);
        for (family, group) in FAMILIES.iter().zip(&train.families) {
            assert_eq!(family.unseen, group.labels.is_empty(), "{}", family.name);
        }
        for group in &test.families {
            assert!(!group.labels.is_empty(), "{}", group.name);
        }
    }
}
