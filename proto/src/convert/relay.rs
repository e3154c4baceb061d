use berth_model::relay::{Caller, Role};

use super::{ConvertError, field, word, word_of};
use crate::v1;

impl From<Caller> for v1::Caller {
    fn from(caller: Caller) -> Self {
        Self {
            role: word_of(&caller.role),
            name: caller.name.to_string(),
            key: caller.key,
        }
    }
}

impl TryFrom<v1::Caller> for Caller {
    type Error = ConvertError;
    fn try_from(caller: v1::Caller) -> Result<Self, ConvertError> {
        Ok(Self {
            role: word(&caller.role).unwrap_or(Role::Unknown),
            name: field("name", &caller.name)?,
            key: caller.key,
        })
    }
}
