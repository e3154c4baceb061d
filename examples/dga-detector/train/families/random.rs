//! Families whose names are letters or digits at random.

use super::Campaign;

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
/// Many families take a remainder of 25 and never reach `z`.
const TO_Y: &[u8] = b"abcdefghijklmnopqrstuvwxy";
const BASE36: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const HEX: &[u8] = b"0123456789abcdef";

/// The letter of `TO_Y` that a number falls on.
fn to_y(number: u64) -> char {
    char::from(TO_Y[usize::try_from(number % 25).unwrap_or(0)])
}

/// Names of `low` to `high` characters.
fn plain(
    c: &mut Campaign<'_>,
    n: usize,
    alphabet: &[u8],
    (low, high): (usize, usize),
    tops: &[&'static str],
) -> Vec<String> {
    (0..n)
        .map(|_| {
            let length = c.prng.between(low, high);
            format!("{}.{}", c.prng.text(alphabet, length), c.top(tops))
        })
        .collect()
}

/// 5 to 11 letters.
pub(super) fn conficker(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    plain(
        c,
        n,
        LETTERS,
        (5, 11),
        &["com", "net", "org", "info", "biz", "cc", "cn", "ws"],
    )
}

/// 7 to 12 letters of a linear congruential generator, below dynamic DNS zones.
pub(super) fn kraken(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let mut state = c.key();
    let mut roll = move || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        (state >> 16) & 0x7fff
    };
    (0..n)
        .map(|_| {
            let length = roll() % 6 + 7;
            let label: String = (0..length)
                .map(|_| char::from(LETTERS[(roll() % 26) as usize]))
                .collect();
            format!(
                "{label}.{}",
                c.top(&["dyndns.org", "yi.org", "mooo.com", "dynserv.com"])
            )
        })
        .collect()
}

/// Each byte of a digest gives up to two letters.
pub(super) fn murofet(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    (0..n)
        .map(|_| {
            let digest = [c.prng.next().to_le_bytes(), c.prng.next().to_le_bytes()].concat();
            let mut label = String::new();
            for byte in digest {
                let (low, high) = (byte & 0x1f, byte >> 3);
                if low != high {
                    label.extend(LETTERS.get(usize::from(low)).map(|&b| char::from(b)));
                    label.extend(LETTERS.get(usize::from(high)).map(|&b| char::from(b)));
                }
            }
            format!(
                "{label}.{}",
                c.top(&["ru", "biz", "info", "org", "net", "com"])
            )
        })
        .collect()
}

/// 12 to 15 letters from three shift registers that start with the date.
pub(super) fn cryptolocker(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    (0..n)
        .map(|_| {
            let [mut year, mut month, mut day] = c.date();
            let key = c.key();
            year = year.wrapping_add(key);
            month ^= key >> 7;
            day ^= key.rotate_left(9);
            let label: String = (0..c.prng.between(12, 15))
                .map(|_| {
                    year = ((year ^ year.wrapping_mul(8)) >> 11) ^ ((year & 0xffff_fff0) << 17);
                    month = ((month ^ month.wrapping_mul(4)) >> 25)
                        ^ (month & 0xffff_fff8).wrapping_mul(16);
                    day = ((day ^ (day << 13)) >> 19) ^ ((day & 0xffff_fffe) << 12);
                    to_y(u64::from(year ^ month ^ day))
                })
                .collect();
            format!(
                "{label}.{}",
                c.top(&["com", "net", "biz", "ru", "org", "co.uk", "info"])
            )
        })
        .collect()
}

/// 7 to 21 letters from a 64-bit mixer over date and index.
pub(super) fn necurs(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let mix = |mut value: u64| {
        for index in 0..(value & 0x7f) + 21 {
            value = value
                .wrapping_add(value.wrapping_mul(7) ^ (value << 15))
                .wrapping_add(8 * index)
                .wrapping_sub(value >> 5);
        }
        value
    };
    let [year, month, day] = c.date().map(u64::from);
    let mut state = mix(mix(mix(year) + month) + day).wrapping_add(u64::from(c.key()));
    (0..n)
        .map(|_| {
            state = mix(state);
            let length = state % 15 + 7;
            let label: String = (0..length)
                .map(|i| {
                    state = mix(state.wrapping_add(i));
                    to_y(state)
                })
                .collect();
            format!(
                "{label}.{}",
                c.top(&["com", "net", "pw", "tj", "in", "su", "bit", "eu"])
            )
        })
        .collect()
}

/// 8 to 19 letters of the minimal standard generator.
pub(super) fn ramnit(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let mut state = u64::from(c.key() | 1);
    let mut roll = move || {
        state = state * 16_807 % 2_147_483_647;
        state
    };
    (0..n)
        .map(|_| {
            let length = roll() % 12 + 8;
            let label: String = (0..length).map(|_| to_y(roll())).collect();
            format!("{label}.com")
        })
        .collect()
}

/// 14 letters from four registers.
pub(super) fn ranbyus(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let mut seed = c.key();
    let [mut year, mut month, mut day] = c.date();
    (0..n)
        .map(|_| {
            let label: String = (0..14)
                .map(|_| {
                    day = (day >> 15)
                        ^ ((day & 0x1fff) ^ (seed ^ day).wrapping_mul(4)).wrapping_mul(16);
                    year = ((year & 0xffff_fff0) << 17) ^ ((year ^ year.wrapping_mul(7)) >> 11);
                    month = (month & 0xffff_fffe).wrapping_mul(14)
                        ^ ((month ^ month.wrapping_mul(4)) >> 8);
                    seed =
                        (seed >> 6) ^ (day.wrapping_add(seed.wrapping_mul(8)) << 8) & 0x03ff_ff00;
                    to_y(u64::from(day ^ month ^ year))
                })
                .collect();
            seed = seed.wrapping_add(c.key());
            format!(
                "{label}.{}",
                c.top(&["in", "me", "cc", "su", "tw", "net", "com", "pw"])
            )
        })
        .collect()
}

/// 12 letters, each name's registers seeded by the last name.
pub(super) fn tinba(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let mut seed = c.key();
    (0..n)
        .map(|_| {
            let mut label = String::new();
            while label.len() < 12 {
                seed = seed
                    .rotate_left(7)
                    .wrapping_mul(0x0801_0201)
                    .wrapping_add(0x2d);
                label.extend(
                    LETTERS
                        .get((seed >> 24 & 0x1f) as usize)
                        .map(|&b| char::from(b)),
                );
            }
            format!("{label}.{}", c.top(&["com", "in", "net", "ru"]))
        })
        .collect()
}

/// 8 to 25 letters.
pub(super) fn qakbot(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    plain(
        c,
        n,
        LETTERS,
        (8, 25),
        &["com", "net", "org", "info", "biz"],
    )
}

/// 5 to 17 letters, registers rotated by the date.
pub(super) fn locky(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let [year, month, day] = c.date();
    let mut state = c.key();
    let mut roll = move |add: u32| {
        state = state
            .wrapping_add(add)
            .wrapping_mul(0xb11e_64bd)
            .rotate_right(7)
            .wrapping_add(0x2709_a354 ^ (year << 9) ^ (month << 5) ^ day);
        state
    };
    (0..n)
        .map(|i| {
            let length = roll(u32::try_from(i).unwrap_or(0)) % 13 + 5;
            let label: String = (0..length).map(|j| to_y(u64::from(roll(j) >> 3))).collect();
            format!(
                "{label}.{}",
                c.top(&["ru", "pw", "eu", "in", "yt", "pm", "us", "fr", "biz"])
            )
        })
        .collect()
}

/// A letter and 33 hexadecimal digits of a digest.
pub(super) fn dyre(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    (0..n)
        .map(|i| {
            let letter = char::from(LETTERS[i % 26]);
            format!(
                "{letter}{}.{}",
                c.prng.text(HEX, 33),
                c.top(&["cc", "ws", "to", "in", "hk"])
            )
        })
        .collect()
}

/// 12 to 23 letters and digits.
pub(super) fn corebot(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let alphabet = b"abcdefghijklmnopqrstuvwxy12345678";
    plain(c, n, alphabet, (12, 23), &["ddns.net", "com"])
}

/// 12 letters and digits.
pub(super) fn qadars(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    plain(c, n, BASE36, (12, 12), &["com", "org", "net", "top"])
}

/// 16 letters.
pub(super) fn emotet(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    plain(c, n, TO_Y, (16, 16), &["eu"])
}

/// 20 to 28 digits of base 36.
pub(super) fn gameover(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    plain(c, n, BASE36, (20, 28), &["com", "net", "org", "biz"])
}

/// 16 or 24 characters of a digest, with its digits replaced by letters.
pub(super) fn padcrypt(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let length = if c.number.is_multiple_of(2) { 16 } else { 24 };
    plain(
        c,
        n,
        b"abcdefnolmk",
        (length, length),
        &["com", "co.uk", "de", "org", "net", "eu"],
    )
}

/// 10 to 15 letters and digits.
pub(super) fn shiotob(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    let alphabet = b"qwertyuiopasdfghjklzxcvbnm123945678";
    plain(c, n, alphabet, (10, 15), &["net", "com"])
}

/// The 32 digits of an MD5.
pub(super) fn bamital(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    plain(c, n, HEX, (32, 32), &["info", "org", "co.cc", "cz.cc"])
}

/// 6 letters.
pub(super) fn virut(c: &mut Campaign<'_>, n: usize) -> Vec<String> {
    plain(c, n, LETTERS, (6, 6), &["com"])
}
