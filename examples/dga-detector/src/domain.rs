//! From a domain name to the one label that somebody, or something, chose: `www.example.co.uk` →
//! `example`.

/// Longest domain name in text form.
pub const MAX_NAME: usize = 253;

/// Longest label.
pub const MAX_LABEL: usize = 63;

/// Why a text is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing but blanks and dots.
    #[error("empty domain name")]
    Empty,
    /// Over 253 bytes.
    #[error("longer than {MAX_NAME} bytes")]
    TooLong,
    /// A character that no host name holds: blank, control, `/`, `:`, `@` and the like.
    #[error("not a domain name: contains {0:?}")]
    Character(char),
    /// `192.0.2.1`.
    #[error("an IP address, not a domain name")]
    Address,
}

/// Public suffixes of two labels below which names are registered by anybody: country second
/// levels, and the dynamic DNS zones that DGAs use as they use top-level domains.
const SUFFIXES: &[&str] = &[
    "ac.jp",
    "ac.uk",
    "co.cc",
    "co.id",
    "co.il",
    "co.in",
    "co.jp",
    "co.ke",
    "co.kr",
    "co.nz",
    "co.th",
    "co.uk",
    "co.za",
    "com.ar",
    "com.au",
    "com.bd",
    "com.br",
    "com.cn",
    "com.co",
    "com.eg",
    "com.hk",
    "com.mx",
    "com.my",
    "com.ng",
    "com.pe",
    "com.ph",
    "com.pk",
    "com.pl",
    "com.sa",
    "com.sg",
    "com.tr",
    "com.tw",
    "com.ua",
    "com.ve",
    "com.vn",
    "cz.cc",
    "edu.au",
    "edu.cn",
    "go.jp",
    "gob.mx",
    "gouv.fr",
    "gov.au",
    "gov.br",
    "gov.cn",
    "gov.in",
    "gov.uk",
    "ltd.uk",
    "me.uk",
    "ne.jp",
    "net.au",
    "net.br",
    "net.cn",
    "nhs.uk",
    "or.jp",
    "or.kr",
    "org.au",
    "org.br",
    "org.cn",
    "org.nz",
    "org.uk",
    "org.za",
    "sch.uk",
    "ddns.net",
    "dnsalias.com",
    "duckdns.org",
    "dyndns.org",
    "dynserv.com",
    "hopto.org",
    "mooo.com",
    "no-ip.biz",
    "no-ip.org",
    "servehttp.com",
    "sytes.net",
    "yi.org",
    "zapto.org",
];

/// The chosen label of `name`: lower-case ASCII letters, digits and hyphens only, at most
/// [`MAX_LABEL`] of them. Empty where the label has none (a name wholly in another script).
///
/// An internationalised label gives its ASCII letters, whether written in Unicode or as `xn--…`.
///
/// # Errors
/// If `name` cannot be a domain name at all.
pub fn chosen_label(name: &str) -> Result<String, DomainError> {
    let name = name.trim().trim_end_matches('.');
    if name.is_empty() {
        return Err(DomainError::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(DomainError::TooLong);
    }
    if let Some(bad) = name.chars().find(|&c| !allowed(c)) {
        return Err(DomainError::Character(bad));
    }
    let name = name.to_lowercase();
    let labels: Vec<&str> = name.split('.').filter(|l| !l.is_empty()).collect();
    let Some((top, rest)) = labels.split_last() else {
        return Err(DomainError::Empty);
    };
    if top.bytes().all(|b| b.is_ascii_digit()) && !rest.is_empty() {
        return Err(DomainError::Address);
    }
    let label = match rest {
        [] => top,
        [.., owner, second] if SUFFIXES.contains(&format!("{second}.{top}").as_str()) => owner,
        [.., owner] => owner,
    };
    Ok(ascii_part(label))
}

/// Whether `c` may stand in a domain name as people paste it.
fn allowed(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => true,
        c => !c.is_ascii() && !c.is_control() && !c.is_whitespace(),
    }
}

fn ascii_part(label: &str) -> String {
    // Punycode puts the ASCII characters first, then the last hyphen, then code points.
    let basic = match label.strip_prefix("xn--") {
        Some(coded) => coded.rsplit_once('-').map_or("", |(basic, _)| basic),
        None => label,
    };
    basic
        .chars()
        .map(|c| if c == '_' { '-' } else { c })
        .filter(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
        .take(MAX_LABEL)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_chosen_label() {
        for (name, label) in [
            ("example.com", "example"),
            ("WWW.Example.CO.UK.", "example"),
            ("co.uk", "co"),
            ("a.b.c.dyndns.org", "c"),
            ("localhost", "localhost"),
            ("_dmarc.some_host.net", "some-host"),
            ("münchen.de", "mnchen"),
            ("xn--mnchen-3ya.de", "mnchen"),
            ("xn--80ak6aa92e.com", ""),
            ("例え.jp", ""),
            ("..a..b..", "a"),
        ] {
            assert_eq!(chosen_label(name).as_deref(), Ok(label), "{name}");
        }
    }

    #[test]
    fn refuses_what_is_no_domain_name() {
        assert_eq!(chosen_label(" . "), Err(DomainError::Empty));
        assert_eq!(chosen_label("10.0.0.1"), Err(DomainError::Address));
        assert_eq!(
            chosen_label("http://example.com"),
            Err(DomainError::Character(':'))
        );
        assert_eq!(chosen_label("a b.com"), Err(DomainError::Character(' ')));
        assert_eq!(chosen_label(&"a.".repeat(200)), Err(DomainError::TooLong));
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_its_alphabet(name in any::<String>()) {
            if let Ok(label) = chosen_label(&name) {
                prop_assert!(label.len() <= MAX_LABEL);
                prop_assert!(label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')));
            }
        }
    }
}
