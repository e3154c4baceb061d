//! What the model can do, measured on names it has not seen.

use std::collections::BTreeMap;

use dga_detector::model::{Model, ModelError};
use serde::Serialize;

use crate::families::{FAMILIES, Style};
use crate::fit::{EXPERTS, Settings, fit};
use crate::sets::{Group, Side};
use crate::words::Source;

/// Logits of every name on a side, by group.
pub(crate) struct Scores {
    benign: Vec<(&'static str, Vec<f64>)>,
    families: Vec<(&'static str, Vec<f64>)>,
}

impl Scores {
    pub(crate) fn of(model: &Model, side: &Side) -> Self {
        let mut scratch = Vec::new();
        let mut score = |groups: &[Group]| {
            groups
                .iter()
                .map(|group| {
                    let labels = group.labels.iter();
                    let logits = labels
                        .map(|l| model.logit(l.as_bytes(), &mut scratch))
                        .collect();
                    (group.name, logits)
                })
                .collect()
        };
        Self {
            benign: score(&side.benign),
            families: score(&side.families),
        }
    }

    fn benign_all(&self) -> Vec<f64> {
        self.benign
            .iter()
            .flat_map(|(_, logits)| logits.clone())
            .collect()
    }

    /// Names of the families that `want` chooses.
    fn dga(&self, want: impl Fn(bool, Style) -> bool) -> Vec<f64> {
        FAMILIES
            .iter()
            .zip(&self.families)
            .filter(|(family, _)| want(family.unseen, family.style))
            .flat_map(|(_, (_, logits))| logits.clone())
            .collect()
    }

    /// Area under the ROC curve, benign against the families seen in training.
    pub(crate) fn auc(&self) -> f64 {
        auc(&self.benign_all(), &self.dga(|unseen, _| !unseen))
    }

    /// Share of benign names at or above the operating point.
    pub(crate) fn false_positive_rate(&self) -> f64 {
        share(&self.benign_all())
    }
}

/// Fits every expert and sets its bias so that it alone flags at most its share in `rates` of
/// the benign names in `valid`.
pub(crate) fn build(
    train: &Side,
    valid: &Side,
    settings: Settings,
    rates: [f64; EXPERTS.len()],
) -> Result<Model, ModelError> {
    let mut experts = Vec::new();
    for (styles, rate) in EXPERTS.into_iter().zip(rates) {
        let mut expert = fit(train, styles, settings);
        let alone = Model::new(settings.bits, vec![expert.clone()])?;
        expert.bias -= operating_point(&Scores::of(&alone, valid), rate);
        experts.push(expert);
    }
    Model::new(settings.bits, experts)
}

/// The least logit that at most the share `rate` of the benign names reach.
fn operating_point(scores: &Scores, rate: f64) -> f32 {
    let mut benign = scores.benign_all();
    benign.sort_by(|a, b| b.total_cmp(a));
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a count of names"
    )]
    let allowed = (benign.len() as f64 * rate) as usize;
    #[allow(clippy::cast_possible_truncation, reason = "a bias is an f32")]
    benign
        .get(allowed)
        .map_or(0.0, |&logit| logit as f32 + 1e-4)
}

/// Share at or above the operating point.
#[allow(clippy::cast_precision_loss, reason = "counts of names")]
fn share(logits: &[f64]) -> f64 {
    logits.iter().filter(|&&logit| logit >= 0.0).count() as f64 / logits.len().max(1) as f64
}

/// The chance that a generated name scores above a benign one; ties count half.
#[allow(clippy::cast_precision_loss, reason = "counts of names")]
fn auc(benign: &[f64], dga: &[f64]) -> f64 {
    let mut sorted = benign.to_vec();
    sorted.sort_by(f64::total_cmp);
    let wins: f64 = dga
        .iter()
        .map(|&d| {
            let below = sorted.partition_point(|&b| b < d);
            let equal = sorted.partition_point(|&b| b <= d) - below;
            below as f64 + equal as f64 / 2.0
        })
        .sum();
    wins / (benign.len().max(1) as f64 * dga.len().max(1) as f64)
}

/// Four decimals: more would claim more than so many names can show.
fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

/// `model/metrics.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    model: File,
    word_lists: Vec<Source>,
    trained_on: Counts,
    held_out_names: Counts,
    /// The share of benign names that the operating point was chosen for, on names apart.
    chosen_false_positive_rate: f64,
    held_out: BTreeMap<&'static str, f64>,
    recall_seen_families: BTreeMap<&'static str, f64>,
    recall_unseen_families: BTreeMap<&'static str, f64>,
    false_positives_by_kind: BTreeMap<&'static str, f64>,
    well_known: WellKnown,
}

#[derive(Debug, Serialize)]
struct File {
    bytes: usize,
    /// [`Model::checksum`].
    crc32: String,
}

#[derive(Debug, Serialize)]
struct Counts {
    benign: usize,
    dga: usize,
}

impl Counts {
    fn of(side: &Side) -> Self {
        Self {
            benign: side.benign_count(),
            dga: side.dga_count(),
        }
    }
}

/// Real names of well-known sites, none of which training saw.
#[derive(Debug, Serialize)]
struct WellKnown {
    names: usize,
    flagged: Vec<String>,
}

/// Everything that is measured.
pub(crate) struct Measured<'a> {
    pub(crate) model: &'a Model,
    pub(crate) sources: Vec<Source>,
    pub(crate) train: &'a Side,
    pub(crate) test: &'a Side,
    pub(crate) rate: f64,
    pub(crate) well_known: &'a [&'a str],
}

impl Report {
    pub(crate) fn new(measured: Measured<'_>) -> Self {
        let Measured {
            model,
            sources,
            train,
            test,
            rate,
            well_known,
        } = measured;
        let scores = Scores::of(model, test);
        let by_family = |unseen: bool| {
            FAMILIES
                .iter()
                .zip(&scores.families)
                .filter(|(family, _)| family.unseen == unseen)
                .map(|(_, (name, logits))| (*name, rounded(share(logits))))
                .collect()
        };
        let kinds = scores.benign.iter();
        Self {
            model: File {
                bytes: model.to_bytes().len(),
                crc32: format!("{:08x}", model.checksum()),
            },
            word_lists: sources,
            trained_on: Counts::of(train),
            held_out_names: Counts::of(test),
            chosen_false_positive_rate: rate,
            held_out: held_out(&scores),
            recall_seen_families: by_family(false),
            recall_unseen_families: by_family(true),
            false_positives_by_kind: kinds.map(|(k, l)| (*k, rounded(share(l)))).collect(),
            well_known: WellKnown {
                names: well_known.len(),
                flagged: flagged(model, well_known),
            },
        }
    }

    /// The line for the manifest.
    pub(crate) fn manifest_line(&self) -> String {
        let pairs: Vec<_> = self
            .held_out
            .iter()
            .map(|(k, v)| format!("{k} = {v:?}"))
            .collect();
        format!("metrics = {{ {} }}", pairs.join(", "))
    }
}

fn held_out(scores: &Scores) -> BTreeMap<&'static str, f64> {
    let seen = scores.dga(|unseen, _| !unseen);
    let unseen = scores.dga(|unseen, _| unseen);
    let fpr = scores.false_positive_rate();
    let values = [
        // Of equally many benign and generated names, those judged right.
        ("accuracy", f64::midpoint(share(&seen), 1.0 - fpr)),
        ("auc", scores.auc()),
        ("auc_unseen_families", auc(&scores.benign_all(), &unseen)),
        ("false_positive_rate", fpr),
        ("recall", share(&seen)),
        (
            "recall_random",
            share(&scores.dga(|u, s| !u && s == Style::Random)),
        ),
        (
            "recall_pronounceable",
            share(&scores.dga(|u, s| !u && s == Style::Pronounceable)),
        ),
        (
            "recall_words",
            share(&scores.dga(|u, s| !u && s == Style::Words)),
        ),
        ("recall_unseen_families", share(&unseen)),
    ];
    values.map(|(name, value)| (name, rounded(value))).into()
}

fn flagged(model: &Model, names: &[&str]) -> Vec<String> {
    let mut scratch = Vec::new();
    names
        .iter()
        .filter(|name| {
            model
                .judge(name, &mut scratch)
                .is_ok_and(|verdict| verdict.dga)
        })
        .map(ToString::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area_under_the_curve() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(auc(&[0.0, 1.0], &[2.0, 3.0]), 1.0));
        assert!(near(auc(&[0.0, 1.0], &[0.0, 1.0]), 0.5));
        assert!(near(auc(&[2.0], &[1.0]), 0.0));
    }

    #[test]
    fn the_operating_point_lets_few_through() {
        let benign = (0..1000).map(f64::from).collect();
        let scores = Scores {
            benign: vec![("word", benign)],
            families: Vec::new(),
        };
        let point = f64::from(operating_point(&scores, 0.01));
        let above = scores
            .benign_all()
            .iter()
            .filter(|&&l| l - point >= 0.0)
            .count();
        assert_eq!(above, 10);
    }
}
