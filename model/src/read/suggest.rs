//! "Did you mean …?"

/// `; did you mean "x"?` for the known word nearest to `given`, or nothing when none is near.
pub fn did_you_mean(given: &str, known: &[&str]) -> String {
    // A third of the word may be wrong, so that short words do not match everything.
    let limit = (given.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|word| (distance(&fold(given), &fold(word)), word))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| format!("; did you mean {word:?}?"))
        .unwrap_or_default()
}

/// `_` for `-` and the wrong case are the commonest slips: they cost nothing.
fn fold(word: &str) -> Vec<char> {
    // A long key is no slip; without the cut a hostile manifest could make this slow.
    word.to_lowercase()
        .replace('_', "-")
        .chars()
        .take(64)
        .collect()
}

/// Edits (insert, delete, replace, swap neighbours) from one word to the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_slips_and_nothing_far_away() {
        let known = ["version", "name", "description", "stop_grace"];
        assert_eq!(
            did_you_mean("verison", &known),
            "; did you mean \"version\"?"
        );
        assert_eq!(
            did_you_mean("stop-grace", &known),
            "; did you mean \"stop_grace\"?"
        );
        assert_eq!(did_you_mean("nam", &known), "; did you mean \"name\"?");
        assert_eq!(did_you_mean("colour", &known), "");
        assert_eq!(did_you_mean("", &known), "");
    }
}
