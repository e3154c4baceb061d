//! The model file and scoring with it.
//!
//! A model is a few *experts*, each a logistic regression over the same features: one knows
//! random and pronounceable names, one knows joined words. A single regression would have to
//! weigh one against the other, since a sum cannot say "or".
//!
//! `dga.bin`, all numbers little-endian:
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 8 | magic `BERTHDGA` |
//! | 8 | 4 | version of this format, 1 |
//! | 12 | 4 | version of the features ([`features::VERSION`]) |
//! | 16 | 4 | `bits`: a table has `2^bits` weights, 8 to 24 |
//! | 20 | 4 | number of experts, 1 to 8 |
//! | 24 | experts × (8 + `2^bits`) | each expert: `scale` (f32, one step of a weight), `bias` (f32), the weights (i8) |
//! | end − 4 | 4 | CRC-32 (IEEE) of everything before |
//!
//! An expert's logit is `bias + scale · Σ weight[feature]`; the score is the sigmoid of the
//! largest. Biases are set in training so that 0.5 is the operating point: the chosen
//! false-positive rate.

use std::path::{Path, PathBuf};

use crate::domain::{DomainError, chosen_label};
use crate::{features, math};

/// Name of the file in the model folder.
pub const FILE: &str = "dga.bin";

const MAGIC: &[u8; 8] = b"BERTHDGA";
const FORMAT: u32 = 1;
const HEADER: usize = 24;
const EXPERT_HEADER: usize = 8;
const TRAILER: usize = 4;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read.
    #[error("cannot read the model {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a whole, undamaged model.
    #[error("the model is corrupted: {0}")]
    Corrupt(&'static str),
    /// The model was trained with other features than this program computes.
    #[error("the model needs features of version {found}, this program computes version {own}")]
    Features {
        /// The file's.
        found: u32,
        /// This program's.
        own: u32,
    },
    /// The file is of another format.
    #[error("the model's format is version {0}, this program reads version {FORMAT}")]
    Format(u32),
}

/// One regression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expert {
    /// One step of a weight.
    pub scale: f32,
    /// Logit of a name without features.
    pub bias: f32,
    /// The weights in steps.
    pub weights: Vec<i8>,
}

impl Expert {
    /// The logit of these features.
    #[must_use]
    pub fn logit(&self, features: &[u32]) -> f64 {
        let sum: i32 = features
            .iter()
            .filter_map(|&i| self.weights.get(i as usize))
            .map(|&w| i32::from(w))
            .sum();
        f64::from(self.bias) + f64::from(self.scale) * f64::from(sum)
    }
}

/// A loaded model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    bits: u32,
    experts: Vec<Expert>,
}

/// What the model says of a name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// 0 (chosen by people) to 1 (generated).
    pub score: f64,
    /// Whether the score is at or above the operating point, 0.5.
    pub dga: bool,
}

impl Model {
    /// A model from its parts. Every expert must hold `2^bits` weights.
    ///
    /// # Errors
    /// If they do not fit together.
    pub fn new(bits: u32, experts: Vec<Expert>) -> Result<Self, ModelError> {
        if !(8..=24).contains(&bits) {
            return Err(ModelError::Corrupt("size of the tables out of range"));
        }
        if !(1..=8).contains(&experts.len()) {
            return Err(ModelError::Corrupt("number of experts out of range"));
        }
        for expert in &experts {
            if expert.weights.len() != 1 << bits {
                return Err(ModelError::Corrupt("wrong number of weights"));
            }
            if !(expert.scale.is_finite() && expert.bias.is_finite() && expert.scale > 0.0) {
                return Err(ModelError::Corrupt("scale or bias is not a usable number"));
            }
        }
        Ok(Self { bits, experts })
    }

    /// Reads the model in the folder `dir`.
    ///
    /// # Errors
    /// If the file is missing, damaged or of another version.
    pub fn load(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join(FILE);
        let bytes = std::fs::read(&path).map_err(|source| ModelError::Read { path, source })?;
        Self::from_bytes(&bytes)
    }

    /// Reads a model file's content.
    ///
    /// # Errors
    /// If it is damaged or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        if bytes.len() < HEADER + TRAILER {
            return Err(ModelError::Corrupt("too short"));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(ModelError::Corrupt("not a model file (wrong magic)"));
        }
        let (content, trailer) = bytes.split_at(bytes.len() - TRAILER);
        // Before anything else is believed, but after the format: another may sum differently.
        if word(content, 8) != FORMAT {
            return Err(ModelError::Format(word(content, 8)));
        }
        if crc32fast::hash(content) != word(trailer, 0) {
            return Err(ModelError::Corrupt("wrong checksum"));
        }
        let found = word(content, 12);
        if found != features::VERSION {
            let own = features::VERSION;
            return Err(ModelError::Features { found, own });
        }
        let (bits, experts) = (word(content, 16), word(content, 20) as usize);
        if !(8..=24).contains(&bits) {
            return Err(ModelError::Corrupt("size of the tables out of range"));
        }
        let body = &content[HEADER..];
        let size = EXPERT_HEADER + (1 << bits);
        if body.len() != experts.saturating_mul(size) {
            return Err(ModelError::Corrupt("length does not match the header"));
        }
        let read = |part: &[u8]| Expert {
            scale: f32::from_bits(word(part, 0)),
            bias: f32::from_bits(word(part, 4)),
            weights: part[EXPERT_HEADER..]
                .iter()
                .map(|b| b.cast_signed())
                .collect(),
        };
        Self::new(bits, body.chunks_exact(size).map(read).collect())
    }

    /// The model file's content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.content();
        bytes.extend_from_slice(&self.checksum().to_le_bytes());
        bytes
    }

    /// The file's checksum. Not that of the whole file: with its own CRC at the end, every file
    /// has the same.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        crc32fast::hash(&self.content())
    }

    /// The file up to its checksum.
    fn content(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let experts = u32::try_from(self.experts.len()).unwrap_or(0);
        for word in [FORMAT, features::VERSION, self.bits, experts] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for expert in &self.experts {
            bytes.extend_from_slice(&expert.scale.to_le_bytes());
            bytes.extend_from_slice(&expert.bias.to_le_bytes());
            bytes.extend(expert.weights.iter().map(|w| w.cast_unsigned()));
        }
        bytes
    }

    /// The largest logit of the experts; `scratch` is overwritten.
    pub fn logit(&self, label: &[u8], scratch: &mut Vec<u32>) -> f64 {
        features::extract(label, self.bits, scratch);
        let logits = self.experts.iter().map(|expert| expert.logit(scratch));
        logits.fold(f64::NEG_INFINITY, f64::max)
    }

    /// Judges a domain name. A name without any ASCII letter or digit in its chosen label gives
    /// the model nothing to go by and scores 0.
    ///
    /// # Errors
    /// If it is not a domain name.
    pub fn judge(&self, name: &str, scratch: &mut Vec<u32>) -> Result<Verdict, DomainError> {
        let label = chosen_label(name)?;
        if label.is_empty() {
            return Ok(Verdict {
                score: 0.0,
                dga: false,
            });
        }
        let logit = self.logit(label.as_bytes(), scratch);
        Ok(Verdict {
            score: math::sigmoid(logit),
            dga: logit >= 0.0,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Model {
        let experts = [0.01, 0.02].map(|scale| Expert {
            scale,
            bias: -0.5,
            weights: (0..=255_u8).map(u8::cast_signed).collect(),
        });
        Model::new(8, experts.into()).unwrap()
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let model = small();
        assert_eq!(Model::from_bytes(&model.to_bytes()).unwrap(), model);
    }

    #[test]
    fn says_which_version_it_lacks() {
        let mut other_format = small().to_bytes();
        other_format[8] = 9;
        assert!(matches!(
            Model::from_bytes(&other_format),
            Err(ModelError::Format(9))
        ));
        let mut other_features = small().to_bytes();
        other_features[12] = 77;
        let end = other_features.len() - TRAILER;
        let sum = crc32fast::hash(&other_features[..end]);
        other_features[end..].copy_from_slice(&sum.to_le_bytes());
        assert!(matches!(
            Model::from_bytes(&other_features),
            Err(ModelError::Features { found: 77, .. })
        ));
    }

    #[test]
    fn a_name_without_ascii_is_not_accused() {
        let verdict = small().judge("例え.jp", &mut Vec::new()).unwrap();
        assert_eq!(
            verdict,
            Verdict {
                score: 0.0,
                dga: false
            }
        );
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(at in 0_usize..556, flip in 1_u8..) {
            let mut bytes = small().to_bytes();
            bytes[at] ^= flip;
            prop_assert!(Model::from_bytes(&bytes).is_err());
        }

        #[test]
        fn any_truncation_is_noticed(length in 0_usize..556) {
            prop_assert!(Model::from_bytes(&small().to_bytes()[..length]).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Model::from_bytes(&bytes);
        }

        #[test]
        fn any_text_is_judged_the_same_twice(name in any::<String>()) {
            let model = small();
            let first = model.judge(&name, &mut Vec::new());
            prop_assert_eq!(first, model.judge(&name, &mut vec![1, 2, 3]));
            if let Ok(verdict) = first {
                prop_assert!((0.0..=1.0).contains(&verdict.score));
                prop_assert_eq!(verdict.dga, verdict.score >= 0.5);
            }
        }
    }
}
