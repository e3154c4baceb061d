//! Families whose names can be pronounced, or partly so.

use super::Campaign;

const VOWELS: &[u8] = b"aeiou";
const CONSONANTS: &[u8] = b"bcdfghjklmnpqrstvwxz";

/// Consonants and vowels in turn, 7 to 11 letters, mostly starting with a consonant.
pub(super) fn simda(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let length = c.prng.between(7, 11);
    (0..n)
        .map(|_| {
            let label: String = (0..length)
                .map(|i| {
                    let alphabet = if i % 2 == 0 {
                        b"qwrtpsdfghjklzxcvbnm"
                    } else {
                        VOWELS
                    };
                    c.prng.letter(alphabet)
                })
                .collect();
            format!("{label}.{}", c.top(&["info", "eu", "com", "su"]))
        })
        .collect()
}

/// 6 to 12 letters whose runs of vowels and consonants stay short.
pub(super) fn pykspa(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    (0..n)
        .map(|_| {
            let length = c.prng.between(6, 12);
            let (mut label, mut run, mut vowels) = (String::new(), 0, c.prng.chance(40));
            while label.len() < length {
                label.push(if vowels {
                    c.prng.letter(b"aeiouy")
                } else {
                    c.prng.letter(CONSONANTS)
                });
                run += 1;
                if run == 2 || c.prng.chance(65) {
                    (vowels, run) = (!vowels, 0);
                }
            }
            format!("{label}.{}", c.top(&["com", "net", "org", "info", "cc"]))
        })
        .collect()
}

/// 7 to 11 letters, syllables of a consonant or two and a vowel.
pub(super) fn vawtrak(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    (0..n)
        .map(|_| {
            let length = c.prng.between(7, 11);
            let mut label = String::new();
            while label.len() < length {
                label.push(c.prng.letter(b"cdfghlmnrstw"));
                if c.prng.chance(30) {
                    label.push(c.prng.letter(b"bdghklnprstv"));
                }
                label.push(c.prng.letter(b"eiaou"));
            }
            label.truncate(length);
            format!("{label}.{}", c.top(&["com", "net", "top", "ru"]))
        })
        .collect()
}

/// A fixed tail; the first four letters step from name to name.
pub(super) fn banjori(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let mut tail = String::new();
    for _ in 0..c.prng.between(1, 2) {
        tail.push_str(c.prng.pick::<String>(&c.words.wide));
    }
    tail.push_str(&c.prng.text(b"aeionrstl", 3));
    tail.truncate(30);
    let fold = |sum: u32| u8::try_from(sum % 26).unwrap_or(0);
    let mut head = [0_u8; 4];
    for letter in &mut head {
        *letter = fold(c.key());
    }
    (0..n)
        .map(|_| {
            let [a, b, third, d] = head.map(u32::from);
            head[0] = fold(a + d);
            head[1] = fold(u32::from(head[0]) + 2 * b + 1);
            head[2] = fold(u32::from(head[0]) + third + 25);
            head[3] = fold(u32::from(head[1]) + u32::from(head[2]) + d);
            let front: String = head.iter().map(|&l| char::from(b'a' + l)).collect();
            format!("{front}{tail}.com")
        })
        .collect()
}

/// Vowels and consonants in turn, now and then one more, below a dynamic DNS zone.
pub(super) fn symmi(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    (0..n)
        .map(|_| {
            let length = c.prng.between(8, 15);
            let mut vowel = c.prng.chance(50);
            let mut label = String::new();
            while label.len() < length {
                label.push(if vowel {
                    c.prng.letter(b"aeiouy")
                } else {
                    c.prng.letter(b"bcdfghklmnpqrstvwxz")
                });
                vowel ^= !c.prng.chance(8);
            }
            format!("{label}.ddns.net")
        })
        .collect()
}
