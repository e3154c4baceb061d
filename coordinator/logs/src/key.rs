//! Which stream: (instance, start, boot), and its folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use berth_model::id::InstanceId;

/// Why a text names no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The instance is not one.
    #[error(transparent)]
    Instance(#[from] berth_model::id::IdError),
    /// The boot id is not one.
    #[error(
        "{text:?} is not a boot id: expected 36 characters as in /proc/sys/kernel/random/boot_id"
    )]
    Boot {
        /// What was given.
        text: String,
    },
    /// Starts are counted from 1.
    #[error("{text:?} is not the number of a start")]
    Start {
        /// What was given.
        text: String,
    },
}

/// One boot of a machine: a lower-case UUID, safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(String);

impl FromStr for BootId {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let hyphens = [8, 13, 18, 23];
        let good = text.len() == 36
            && text.bytes().enumerate().all(|(i, b)| match b {
                b'-' => hyphens.contains(&i),
                b'0'..=b'9' | b'a'..=b'f' => !hyphens.contains(&i),
                _ => false,
            });
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::Boot {
                text: text.to_owned(),
            })
        }
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One stream: the log of one run of an instance's shim within one boot of its machine.
///
/// Text form `INSTANCE/START-BOOT`. Order: by instance, then start, then boot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The instance.
    pub instance: InstanceId,
    /// Number of its start, from 1.
    pub start: u32,
    /// The boot.
    pub boot: BootId,
}

impl StreamKey {
    /// Checks and takes what a node says.
    pub fn parse(instance: &str, start: u32, boot_id: &str) -> Result<Self, KeyError> {
        if start == 0 {
            return Err(KeyError::Start {
                text: start.to_string(),
            });
        }
        Ok(Self {
            instance: instance.parse()?,
            start,
            boot: boot_id.parse()?,
        })
    }

    /// The key of a stream's folder, by the names of its instance's folder and its own.
    pub(crate) fn of_folders(instance: &str, name: &str) -> Result<Self, KeyError> {
        let bad = || KeyError::Start {
            text: name.to_owned(),
        };
        let (start, boot) = name.split_once('-').ok_or_else(bad)?;
        let number: u32 = start.parse().map_err(|_| bad())?;
        if number.to_string() != start {
            return Err(bad());
        }
        Self::parse(instance, number, boot)
    }

    /// The stream's folder under the store's.
    pub(crate) fn dir(&self, root: &Path) -> PathBuf {
        root.join(self.instance.slot.service.as_str())
            .join(self.instance.to_string())
            .join(format!("{}-{}", self.start, self.boot))
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}-{}", self.instance, self.start, self.boot)
    }
}

impl FromStr for StreamKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (instance, name) = text.split_once('/').ok_or_else(|| KeyError::Start {
            text: text.to_owned(),
        })?;
        Self::of_folders(instance, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "0f3a1c52-9a8e-4c1b-8f5e-5f7c6b1d2e3f";

    #[test]
    fn only_safe_texts_become_folders() {
        let key = StreamKey::parse("web.1.0.2", 7, BOOT).unwrap();
        assert_eq!(
            key.dir(Path::new("/l")),
            Path::new("/l/web/web.1.0.2").join(format!("7-{BOOT}"))
        );
        assert_eq!(key.to_string().parse(), Ok(key));
        for boot in [
            "",
            "..",
            "0f3a1c52-9a8e-4c1b-8f5e-5f7c6b1d2e3",
            "0F3A1C52-9a8e-4c1b-8f5e-5f7c6b1d2e3f",
            "../../../../../../../../../../../etc",
            "0f3a1c52/9a8e-4c1b-8f5e-5f7c6b1d2e3f",
        ] {
            assert!(StreamKey::parse("web.1.0.2", 7, boot).is_err(), "{boot}");
        }
        assert!(StreamKey::parse("../web.1.0.2", 7, BOOT).is_err());
        assert!(StreamKey::parse("web.1.0.2", 0, BOOT).is_err());
        assert!(StreamKey::of_folders("web.1.0.2", &format!("07-{BOOT}")).is_err());
    }
}
