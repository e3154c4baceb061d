//! Names and identities: services, nodes, models, slots, instances.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: that of a DNS label, so that a name fits wherever a host name does.
pub const MAX_NAME: usize = 63;

/// Why a text is not a name or an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not a DNS label.
    #[error(
        "{what} {text:?} is not a valid name: use 1 to 63 lower-case letters, digits and '-', \
         beginning and ending with a letter or digit"
    )]
    Name {
        /// Which kind of name was wanted.
        what: &'static str,
        /// What was given.
        text: String,
    },
    /// The text is not `SERVICE.REVISION.ORDINAL.ATTEMPT`.
    #[error(
        "{text:?} is not an instance: expected SERVICE.REVISION.ORDINAL.ATTEMPT, as in web.1.0.3"
    )]
    Instance {
        /// What was given.
        text: String,
    },
}

fn is_label(text: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    match bytes {
        [] => false,
        [one] => edge(*one),
        [first, inner @ .., last] => {
            bytes.len() <= MAX_NAME
                && edge(*first)
                && edge(*last)
                && inner.iter().all(|b| edge(*b) || *b == b'-')
        }
    }
}

// Names are copied about far more often than they are made: a copy shares the text.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes a name. Errors: [`IdError::Name`].
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                if is_label(&text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError::Name { what: $what, text })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A service's name, unique in a fleet; it is the model name that clients of the gateway use.
    ServiceName,
    "service"
);
name!(
    /// A node's name, unique in a fleet.
    NodeName,
    "node"
);
name!(
    /// A registered model's name: the `name` of its packages' manifests.
    ModelName,
    "model"
);
name!(
    /// A configured Kubernetes cluster's name.
    ClusterName,
    "cluster"
);
name!(
    /// A job's name, unique in a fleet and never shared with a service.
    JobName,
    "job"
);
name!(
    /// A gateway process's name.
    GatewayName,
    "gateway"
);

name!(
    /// A pool's name.
    PoolName,
    "pool"
);
name!(
    /// What a set of fleet files calls itself: what it declares is its own.
    FleetName,
    "fleet"
);

/// Files that do not say.
impl Default for FleetName {
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

/// A job's tasks are instances whose service is the job's name.
impl From<&JobName> for ServiceName {
    fn from(name: &JobName) -> Self {
        Self(Arc::clone(&name.0))
    }
}

impl From<&ServiceName> for JobName {
    fn from(name: &ServiceName) -> Self {
        Self(Arc::clone(&name.0))
    }
}

/// One place of a service's revision: (service, revision, ordinal). Instances come and go in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The service.
    pub service: ServiceName,
    /// The revision's number, from 1; never used again within a service name, even after deletion.
    pub revision: u32,
    /// The place's number within the revision, from 0.
    pub ordinal: u32,
}

/// One attempt to fill a [`Slot`]. Text form `SERVICE.REVISION.ORDINAL.ATTEMPT`, which is safe as a
/// file name and as a header value. A replacement has a higher attempt, so never the same identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    /// The place.
    pub slot: Slot,
    /// The attempt, from 1; committed before it is acted on.
    pub attempt: u32,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Slot {
            service,
            revision,
            ordinal,
        } = &self.slot;
        f.pad(&format!("{service}.{revision}.{ordinal}.{}", self.attempt))
    }
}

impl FromStr for InstanceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Instance {
            text: text.to_owned(),
        };
        let number = |part: &str| -> Result<u32, IdError> {
            // Only the canonical decimal form, so that an instance has exactly one text.
            let value: u32 = part.parse().map_err(|_| bad())?;
            if value.to_string() == part {
                Ok(value)
            } else {
                Err(bad())
            }
        };
        let parts: Vec<&str> = text.split('.').collect();
        let [service, revision, ordinal, attempt] = parts[..] else {
            return Err(bad());
        };
        Ok(Self {
            slot: Slot {
                service: ServiceName::new(service).map_err(|_| bad())?,
                revision: number(revision)?,
                ordinal: number(ordinal)?,
            },
            attempt: number(attempt)?,
        })
    }
}

impl TryFrom<String> for InstanceId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_have_one_text_form() {
        let id: InstanceId = "dga-detector.1.0.3".parse().unwrap();
        assert_eq!(id.to_string(), "dga-detector.1.0.3");
        assert_eq!((id.slot.revision, id.slot.ordinal, id.attempt), (1, 0, 3));
        for bad in [
            "a.1.0",
            "a.1.0.03",
            "a.1.0.+3",
            "A.1.0.3",
            "a.1.0.3.4",
            "",
            "../x.1.1.1",
        ] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "a-b", "0", "x9"] {
            assert!(ServiceName::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", long.as_str()] {
            assert!(ServiceName::new(bad).is_err(), "{bad}");
        }
    }
}
