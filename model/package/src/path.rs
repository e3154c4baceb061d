//! Which names may be in a package.

use unicode_normalization::UnicodeNormalization;

use crate::error::Refused;

/// Longest component in bytes: what Linux file systems hold.
const MAX_COMPONENT: usize = 255;
/// Longest path in bytes: leaves room for the store's own path below PATH_MAX.
const MAX_PATH: usize = 1024;

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// No name at all.
    #[error("is empty")]
    Empty,
    /// Begins with `/`.
    #[error("is absolute")]
    Absolute,
    /// `.`, `..` or nothing between slashes.
    #[error("has an empty part, \".\" or \"..\"")]
    Component,
    /// Over 255 bytes between slashes or over 1024 in all.
    #[error("is too long (255 bytes a part, 1024 in all)")]
    TooLong,
    /// Not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// A control character, or one that changes how the name is displayed.
    #[error("holds a control character")]
    Control,
}

/// The name as text, if it may be in a package.
pub(crate) fn check(name: &[u8]) -> Result<&str, Refused> {
    let refuse = |problem| Refused::Path {
        name: shown(name),
        problem,
    };
    let text = std::str::from_utf8(name).map_err(|_| refuse(PathProblem::NotUtf8))?;
    if text.is_empty() {
        return Err(refuse(PathProblem::Empty));
    }
    if text.starts_with('/') {
        return Err(refuse(PathProblem::Absolute));
    }
    if text.len() > MAX_PATH {
        return Err(refuse(PathProblem::TooLong));
    }
    for part in text.split('/') {
        match part {
            "" | "." | ".." => return Err(refuse(PathProblem::Component)),
            _ if part.len() > MAX_COMPONENT => return Err(refuse(PathProblem::TooLong)),
            _ => {}
        }
    }
    if text.chars().any(is_control) {
        return Err(refuse(PathProblem::Control));
    }
    Ok(text)
}

/// The target of a symbolic link as text; where it leads is checked once everything is known.
pub(crate) fn check_target(target: &[u8]) -> Result<&str, PathProblem> {
    let text = std::str::from_utf8(target).map_err(|_| PathProblem::NotUtf8)?;
    match text {
        "" => Err(PathProblem::Empty),
        _ if text.starts_with('/') => Err(PathProblem::Absolute),
        _ if text.len() > MAX_PATH => Err(PathProblem::TooLong),
        _ if text.chars().any(is_control) => Err(PathProblem::Control),
        _ => Ok(text),
    }
}

/// Control characters, line separators, and the marks that reorder text: `exe.fdp` must not be
/// shown as `pdf.exe`.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A hostile name as it can be shown.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(200)]).into_owned()
}

/// The form in which two names are one on file systems that ignore case and Unicode form.
pub(crate) fn fold(path: &str) -> String {
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    path.nfc()
        .collect::<String>()
        .to_lowercase()
        .nfc()
        .collect()
}

/// The folder above, unless that is the package itself.
pub(crate) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged() {
        let problem = |name: &[u8]| match check(name) {
            Err(Refused::Path { problem, .. }) => Some(problem),
            _ => None,
        };
        for good in ["a", "a b/ä.txt", "...", "a/..b", ".git"] {
            assert_eq!(check(good.as_bytes()), Ok(good));
        }
        let long_part = "x".repeat(256);
        let long_path = ["x".repeat(200).as_str()].repeat(6).join("/");
        for (bad, wanted) in [
            (&b""[..], PathProblem::Empty),
            (b"/etc/passwd", PathProblem::Absolute),
            (b"../x", PathProblem::Component),
            (b"a/../b", PathProblem::Component),
            (b"a//b", PathProblem::Component),
            (b"./a", PathProblem::Component),
            (b"a/", PathProblem::Component),
            (b"a\xff", PathProblem::NotUtf8),
            (b"a\nb", PathProblem::Control),
            (b"a\x7f", PathProblem::Control),
            ("a\u{202e}b".as_bytes(), PathProblem::Control),
            (long_part.as_bytes(), PathProblem::TooLong),
            (long_path.as_bytes(), PathProblem::TooLong),
        ] {
            assert_eq!(problem(bad), Some(wanted), "{}", shown(bad));
        }
    }

    #[test]
    fn folding_joins_case_and_unicode_forms() {
        assert_eq!(fold("Model/A.TXT"), fold("model/a.txt"));
        assert_eq!(fold("é"), fold("E\u{301}"));
        assert_ne!(fold("e"), fold("é"));
    }
}
