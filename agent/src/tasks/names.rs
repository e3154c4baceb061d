//! Which names the files of an input folder may have.

use std::path::{Path, PathBuf};

/// Longest part of a name in bytes: what Linux file systems hold.
const MAX_PART: usize = 255;

/// Longest name in bytes.
const MAX_NAME: usize = 1024;

/// The place of a file in a folder. Errors: the name would lead elsewhere, or makes no sense; with what is wrong.
pub(super) fn place(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let wrong = |problem: &str| {
        let shown: String = name.chars().take(100).collect();
        Err(format!("the name {shown:?} in it {problem}"))
    };
    if name.is_empty() {
        return wrong("is empty");
    }
    if name.starts_with('/') {
        return wrong("is absolute");
    }
    if name.len() > MAX_NAME || name.split('/').any(|part| part.len() > MAX_PART) {
        return wrong("is too long");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return wrong("has an empty part, \".\" or \"..\"");
    }
    if name.chars().any(char::is_control) {
        return wrong("holds a control character");
    }
    Ok(folder.join(name))
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_judged() {
        let place = |name: &str| super::place(Path::new("/in"), name);
        for good in ["a", "a b/ä.jsonl", "...", "a/..b", ".x"] {
            assert_eq!(place(good), Ok(Path::new("/in").join(good)));
        }
        let long = [
            "x".repeat(256),
            ["x".repeat(200).as_str()].repeat(6).join("/"),
        ];
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "./a",
            "a/",
            "a\nb",
            "a\0b",
            &long[0],
            &long[1],
        ] {
            assert!(place(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leads_out(name in "[a./\\PC]{0,12}") {
            if let Ok(path) = place(Path::new("/in"), &name) {
                prop_assert!(path.starts_with("/in") && path != Path::new("/in"));
                prop_assert!(path.components().skip(1).all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
