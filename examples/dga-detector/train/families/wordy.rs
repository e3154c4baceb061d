//! Families that join words of a list. A family's lists stay the same over its campaigns, as in
//! the malware; the order of the names is what a date or seed changes.

use super::Campaign;
use crate::prng::Prng;

/// `n` words of 3 to 9 letters: list `number` of a family.
fn list<'a>(from: &'a [String], family: &str, number: u64, n: usize) -> Vec<&'a str> {
    let mut prng = Prng::new(&format!("{family} list"), number);
    let mut words = Vec::with_capacity(n);
    for _ in 0..n * 50 {
        if words.len() == n {
            break;
        }
        let word = prng.pick(from).as_str();
        if (3..=9).contains(&word.len()) && !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// Two words of one of three lists of 384.
pub(super) fn suppobox(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let words = list(&c.words.everyday, "suppobox", c.number % 3, 384);
    (0..n)
        .map(|_| format!("{}{}.net", c.prng.pick(&words), c.prng.pick(&words)))
        .collect()
}

/// Words of a text joined until the name has 12 to 23 letters.
pub(super) fn gozi(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let words = list(&c.words.everyday, "gozi", c.number % 2, 700);
    (0..n)
        .map(|_| {
            let length = c.prng.between(12, 23);
            let mut label = String::new();
            while label.len() < length {
                label.push_str(c.prng.pick::<&str>(&words));
            }
            label.truncate(24);
            format!("{label}.{}", c.top(&["com", "ru", "org"]))
        })
        .collect()
}

/// A noun, a verb, a noun, … until 24 letters are full.
pub(super) fn matsnu(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let nouns = list(&c.words.everyday, "matsnu noun", 0, 600);
    let verbs = list(&c.words.everyday, "matsnu verb", 0, 300);
    (0..n)
        .map(|_| {
            let mut label = c.prng.pick(&nouns).to_string();
            for turn in 1.. {
                let word = c.prng.pick(if turn % 2 == 0 { &nouns } else { &verbs });
                if label.len() + word.len() > 24 {
                    break;
                }
                label.push_str(word);
            }
            format!("{label}.com")
        })
        .collect()
}
