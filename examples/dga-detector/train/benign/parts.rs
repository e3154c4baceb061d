//! Names put together from whole words, pieces of words, syllables and digits.

use super::Composer;
use crate::prng::Prng;

const FRONT: &[&str] = &[
    "get", "my", "the", "go", "e", "i", "try", "use", "we", "our", "one", "all", "best", "pro",
    "net", "web", "eco", "bio", "geo", "auto", "super", "smart", "live", "open", "free", "big",
    "new", "red", "blue", "green", "uni", "inter", "trans", "tele", "micro", "meta", "hyper",
    "cyber", "info", "data", "cloud", "air", "neo",
];

const BACK: &[&str] = &[
    "app", "hq", "hub", "ly", "ify", "io", "labs", "lab", "online", "shop", "store", "tech",
    "group", "media", "news", "blog", "web", "net", "world", "club", "box", "base", "link", "zone",
    "city", "point", "soft", "ware", "works", "house", "care", "bank", "pay", "game", "games",
    "play", "tv", "fm", "er", "ist", "eria", "ster", "wiki", "pedia", "tube", "cast", "space",
    "book", "cdn", "static", "mail", "host", "server", "systems", "digital", "design", "studio",
    "inc", "corp", "ltd", "gmbh", "usa", "uk", "eu", "de",
];

const SMALL: &[&str] = &[
    "how", "to", "what", "is", "my", "the", "of", "for", "and", "in", "on", "by", "with", "your",
    "at", "from", "no", "we", "are", "a",
];

/// Syllables of romanised Chinese.
pub(super) const PINYIN: &[&str] = &[
    "ai", "an", "bai", "bang", "bao", "bei", "bo", "cai", "chang", "cheng", "chi", "da", "dao",
    "di", "dian", "dong", "dou", "du", "fang", "fei", "feng", "gang", "gou", "guang", "guo", "hai",
    "han", "hao", "he", "hong", "hua", "huan", "huang", "hui", "ji", "jia", "jian", "jin", "jing",
    "ke", "kong", "kuai", "lai", "le", "li", "lian", "liang", "lin", "long", "lu", "ma", "mao",
    "mei", "meng", "mi", "ming", "nan", "niu", "pai", "peng", "pin", "qi", "qian", "qing", "qiu",
    "quan", "ren", "ri", "san", "shan", "shang", "shen", "sheng", "shi", "shou", "shu", "si",
    "song", "su", "tai", "tao", "tian", "tong", "tu", "wan", "wang", "wei", "wen", "wu", "xi",
    "xia", "xian", "xiang", "xiao", "xin", "xing", "xue", "yang", "yi", "yin", "you", "yu", "yuan",
    "yun", "zai", "zhang", "zhao", "zheng", "zhi", "zhong", "zhu", "zi",
];

/// Syllables of romanised Japanese.
pub(super) const ROMAJI: &[&str] = &[
    "a", "i", "u", "e", "o", "ka", "ki", "ku", "ke", "ko", "sa", "shi", "su", "se", "so", "ta",
    "chi", "tsu", "te", "to", "na", "ni", "nu", "ne", "no", "ha", "hi", "fu", "he", "ho", "ma",
    "mi", "mu", "me", "mo", "ya", "yu", "yo", "ra", "ri", "ru", "re", "ro", "wa", "n", "ga", "gi",
    "gu", "go", "za", "ji", "zu", "da", "do", "ba", "bi", "bu", "pa", "kyo", "sho", "shu", "ryo",
];

/// `howtocook`, `wordsforfun`.
pub(super) fn phrase(c: &Composer<'_>, prng: &mut Prng) -> String {
    let mut out = String::new();
    if prng.chance(50) {
        out.push_str(prng.pick::<&str>(SMALL));
    }
    for _ in 0..prng.between(1, 2) {
        out.push_str(&c.short(prng));
        out.push_str(prng.pick::<&str>(SMALL));
    }
    out + &c.everyday(prng)
}

/// `getpocket`, `shopify`, `my-bank`.
pub(super) fn affixed(c: &Composer<'_>, prng: &mut Prng) -> String {
    let word = c.any(prng);
    let hyphen = if prng.chance(10) { "-" } else { "" };
    match prng.below(5) {
        0 | 1 => format!("{}{hyphen}{word}", prng.pick::<&str>(FRONT)),
        2 | 3 => format!("{word}{hyphen}{}", prng.pick::<&str>(BACK)),
        _ => format!("{}{}", prng.pick::<&str>(FRONT), prng.pick::<&str>(BACK)),
    }
}

fn number(prng: &mut Prng) -> String {
    match prng.below(6) {
        0 => format!("{}", prng.between(1, 9)),
        1 => (*prng.pick(&["24", "247", "360", "365", "123", "101", "007", "99", "64"])).to_owned(),
        2 => format!("{}", prng.between(1950, 2030)),
        3 => format!("{:03}", prng.below(1000)),
        _ => format!("{}", prng.between(10, 99)),
    }
}

/// `channel4`, `1and1`, `web24`.
pub(super) fn with_digits(c: &Composer<'_>, prng: &mut Prng) -> String {
    let word = c.any(prng);
    match prng.below(8) {
        0 | 1 => format!("{}{word}", number(prng)),
        2 => format!("{word}{}{}", prng.between(2, 4), c.short(prng)),
        3 => format!("{word}-{}", number(prng)),
        4 => format!("{}{}", abbreviation(c, prng), number(prng)),
        _ => format!("{word}{}", number(prng)),
    }
}

/// `janedoe`, `smithplumbing`, `j-doe`.
pub(super) fn person(c: &Composer<'_>, prng: &mut Prng) -> String {
    let family = prng.pick(&c.words.names).clone();
    let hyphen = if prng.chance(12) { "-" } else { "" };
    match prng.below(4) {
        0 | 1 => format!("{}{hyphen}{family}", prng.pick(&c.words.names)),
        2 => format!("{family}{hyphen}{}", c.everyday(prng)),
        _ => format!("{}{hyphen}{family}", prng.letter(b"abcdefghijklmnoprstw")),
    }
}

/// `bbc`, `nhs`, `mfgjobs`: initials, at times before or after a word.
pub(super) fn abbreviation(c: &Composer<'_>, prng: &mut Prng) -> String {
    let initials: String = (0..prng.between(2, 5))
        .filter_map(|_| c.any(prng).chars().next())
        .collect();
    match prng.below(6) {
        0 | 1 => initials + &c.everyday(prng),
        2 => initials + prng.pick::<&str>(BACK),
        3 => c.everyday(prng) + &initials.chars().take(3).collect::<String>(),
        _ => initials,
    }
}

/// `intelsat`, `comcast`: the fronts of words.
pub(super) fn clipped(c: &Composer<'_>, prng: &mut Prng) -> String {
    let mut front = || {
        let length = prng.between(2, 5);
        c.any(prng).chars().take(length).collect::<String>()
    };
    let (first, second) = (front(), front());
    match prng.below(4) {
        0 => first + &c.everyday(prng),
        1 => first + &second + prng.pick::<&str>(BACK),
        _ => first + &second,
    }
}

/// One word of another language.
pub(super) fn foreign_word(c: &Composer<'_>, prng: &mut Prng) -> String {
    let language = prng.pick(&c.words.foreign);
    let word = prng.pick(language).clone();
    match prng.below(6) {
        0 => word + prng.pick::<&str>(BACK),
        1 => format!("{}{word}", prng.pick::<&str>(FRONT)),
        _ => word,
    }
}

/// Two words of one other language.
pub(super) fn foreign_compound(c: &Composer<'_>, prng: &mut Prng) -> String {
    let language = prng.pick(&c.words.foreign);
    let hyphen = if prng.chance(25) { "-" } else { "" };
    format!("{}{hyphen}{}", prng.pick(language), prng.pick(language))
}

/// `taobao`, `rakuten`.
pub(super) fn syllables(prng: &mut Prng, of: &[&str], low: usize, high: usize) -> String {
    let mut name: String = (0..prng.between(low, high))
        .map(|_| *prng.pick(of))
        .collect();
    if prng.chance(10) {
        name += &number(prng);
    }
    name
}

/// `163`, `58`, `4399`.
pub(super) fn digits(_: &Composer<'_>, prng: &mut Prng) -> String {
    let length = prng.between(2, 5);
    prng.text(b"0123456789", length)
}
