//! Logistic regression by stochastic gradient descent with per-weight steps (AdaGrad), one thread
//! and a fixed order, so that the same data gives the same bits.

use dga_detector::features;
use dga_detector::math::sigmoid;
use dga_detector::model::Expert;

use crate::families::{FAMILIES, Style};
use crate::prng::Prng;
use crate::sets::{Group, Side};

/// The experts, each by the styles of families that it learns.
pub(crate) const EXPERTS: [&[Style]; 2] = [&[Style::Random, Style::Pronounceable], &[Style::Words]];

/// How to fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// The table has `2^bits` weights.
    pub(crate) bits: u32,
    pub(crate) epochs: usize,
    pub(crate) rate: f32,
    /// Pull towards zero, per example.
    pub(crate) decay: f32,
}

/// What the committed model is trained with.
pub(crate) const FULL: Settings = Settings {
    bits: 18,
    epochs: 3,
    rate: 0.05,
    decay: 2e-6,
};

/// All examples' features in one run of memory.
struct Examples {
    indices: Vec<u32>,
    ends: Vec<usize>,
    dga: Vec<bool>,
}

impl Examples {
    fn of(benign: &[&Group], dga: &[&Group], bits: u32) -> Self {
        let mut all = Self {
            indices: Vec::new(),
            ends: vec![0],
            dga: Vec::new(),
        };
        let mut scratch = Vec::new();
        for (dga, groups) in [(false, benign), (true, dga)] {
            for label in groups.iter().flat_map(|group| &group.labels) {
                features::extract(label.as_bytes(), bits, &mut scratch);
                all.indices.extend_from_slice(&scratch);
                all.ends.push(all.indices.len());
                all.dga.push(dga);
            }
        }
        all
    }

    fn get(&self, i: usize) -> (&[u32], bool) {
        (&self.indices[self.ends[i]..self.ends[i + 1]], self.dga[i])
    }
}

/// Fits an expert for families of these styles; both classes weigh the same, however many names
/// each has.
pub(crate) fn fit(side: &Side, styles: &[Style], settings: Settings) -> Expert {
    let benign: Vec<&Group> = side.benign.iter().collect();
    let families = FAMILIES.iter().zip(&side.families);
    let dga: Vec<&Group> = families
        .filter(|(family, _)| styles.contains(&family.style))
        .map(|(_, group)| group)
        .collect();
    let examples = Examples::of(&benign, &dga, settings.bits);
    let mut table = Table::new(settings);
    let weight = ratio(&benign, &dga);
    let mut order: Vec<usize> = (0..examples.dga.len()).collect();
    for epoch in 0..settings.epochs {
        Prng::new("epoch", epoch as u64).shuffle(&mut order);
        for &i in &order {
            let (indices, dga) = examples.get(i);
            let error = table.probability(indices) - f32::from(u8::from(dga));
            table.step(indices, error * if dga { weight } else { 1.0 });
        }
    }
    table.quantised()
}

/// Names in `a` for each in `b`.
#[allow(clippy::cast_precision_loss, reason = "counts of names")]
fn ratio(a: &[&Group], b: &[&Group]) -> f32 {
    let count = |groups: &[&Group]| groups.iter().map(|g| g.labels.len()).sum::<usize>().max(1);
    count(a) as f32 / count(b) as f32
}

struct Table {
    settings: Settings,
    weights: Vec<f32>,
    /// Sums of squared gradients.
    squares: Vec<f32>,
    bias: f32,
    bias_squares: f32,
}

impl Table {
    fn new(settings: Settings) -> Self {
        let size = 1 << settings.bits;
        Self {
            settings,
            weights: vec![0.0; size],
            squares: vec![1.0; size],
            bias: 0.0,
            bias_squares: 1.0,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "a probability")]
    fn probability(&self, indices: &[u32]) -> f32 {
        let sum: f32 = indices.iter().map(|&i| self.weights[i as usize]).sum();
        sigmoid(f64::from(self.bias + sum)) as f32
    }

    fn step(&mut self, indices: &[u32], error: f32) {
        let Settings { rate, decay, .. } = self.settings;
        for &i in indices {
            let (weight, square) = (&mut self.weights[i as usize], &mut self.squares[i as usize]);
            let gradient = error + decay * *weight;
            *square += gradient * gradient;
            *weight -= rate * gradient / square.sqrt();
        }
        self.bias_squares += error * error;
        self.bias -= rate * error / self.bias_squares.sqrt();
    }

    /// Weights in steps of one scale, rounded; the few beyond its range are clipped.
    fn quantised(&self) -> Expert {
        let mut sizes: Vec<f32> = self.weights.iter().map(|w| w.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        // Two in ten thousand may be clipped: a finer step is worth more than they are.
        let largest = sizes[sizes.len() - 1 - sizes.len() / 5000].max(1e-3);
        let scale = largest / 127.0;
        #[allow(clippy::cast_possible_truncation, reason = "clamped to an i8")]
        let weights = self
            .weights
            .iter()
            .map(|w| (w / scale).round().clamp(-127.0, 127.0) as i8)
            .collect();
        Expert {
            scale,
            bias: self.bias,
            weights,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Scores, build};
    use crate::sets::{Taken, tests::SMALL};
    use crate::words::{Part, tests::made_up};
    use dga_detector::model::Model;

    fn train() -> (Model, Side) {
        let (lexicon, mut taken) = (made_up(), Taken::default());
        let [train, valid] =
            [Part::Train, Part::Valid].map(|part| Side::make(part, &lexicon, SMALL, &mut taken));
        let settings = Settings {
            bits: 14,
            epochs: 3,
            ..FULL
        };
        (
            build(&train, &valid, settings, [0.015, 0.005]).unwrap(),
            valid,
        )
    }

    /// The same bytes on every machine, at every optimisation level: the sum is of a model that
    /// this very code trained. It changes only with the data, the features or the fitting.
    #[test]
    fn training_gives_the_same_bytes_everywhere() {
        let (model, _) = train();
        assert_eq!(model.checksum(), 2_269_737_883);
    }

    #[test]
    fn even_a_small_model_learns() {
        let (model, valid) = train();
        let scores = Scores::of(&model, &valid);
        assert!(scores.auc() > 0.9, "{}", scores.auc());
        assert!(scores.false_positive_rate() <= 0.02);
    }
}
