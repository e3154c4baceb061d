//! `NAME`, `NAME@1.2.0`, `NAME@#3`, `NAME#3`, `NAME@alias`: which model version is meant.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::id::ModelName;
use berth_model::manifest::suggest::did_you_mean;
use berth_model::problem::Problem;
use berth_model::service::ModelVersion;

/// All versions of all models.
pub(crate) type Models = BTreeMap<(ModelName, u64), ModelVersion>;

/// The versions of one model, oldest push first.
pub(crate) fn versions<'a>(
    models: &'a Models,
    name: &ModelName,
) -> impl DoubleEndedIterator<Item = &'a ModelVersion> + use<'a> {
    models
        .range((name.clone(), 0)..=(name.clone(), u64::MAX))
        .map(|(_, version)| version)
}

/// The version that `text` means; without a version the newest push. Errors: 422 for what is not a
/// reference, 404 for what is not there, with what there is.
pub(crate) fn resolve<'a>(models: &'a Models, text: &str) -> Result<&'a ModelVersion, Problem> {
    let split = text.find(['@', '#']).unwrap_or(text.len());
    let (name, rest) = text.split_at(split);
    let name = ModelName::new(name).map_err(|e| Problem::invalid(e.to_string()))?;
    let newest = versions(models, &name)
        .next_back()
        .ok_or_else(|| unknown_model(models, &name))?;
    let wanted = rest.strip_prefix('@').unwrap_or(rest);
    if wanted.is_empty() {
        return if rest.is_empty() {
            Ok(newest)
        } else {
            Err(Problem::invalid(format!(
                "{text:?} lacks a version after '@': write NAME@1.2.0 or NAME@#3, or the name alone for \
                 the newest push"
            )))
        };
    }
    let found = if let Some(serial) = wanted.strip_prefix('#') {
        let serial: u64 = serial.parse().map_err(|_| {
            Problem::invalid(format!(
                "{wanted:?} is not a serial: write a number, as in {name}@#3"
            ))
        })?;
        versions(models, &name).find(|v| v.serial == serial)
    } else {
        // What is not a semantic version would be an alias.
        semver::Version::parse(wanted)
            .ok()
            .and_then(|version| versions(models, &name).find(|v| v.version == version))
    };
    found.ok_or_else(|| {
        Problem::not_found(format!(
            "model {name} has no version or alias {wanted:?}; it has {}",
            known(models, &name)
        ))
    })
}

/// 404 for a model, with what there is.
pub(crate) fn unknown_model(models: &Models, name: &ModelName) -> Problem {
    let names: BTreeSet<&str> = models.keys().map(|(name, _)| name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let there = match names.len() {
        0 => "; nothing has been pushed yet: `berth model push DIR`".to_owned(),
        n => {
            let more = if n > 10 { ", …" } else { "" };
            let shown = names.iter().take(10).copied().collect::<Vec<_>>();
            let hint = did_you_mean(name.as_str(), &names);
            format!("{hint}; there are {}{more}", shown.join(", "))
        }
    };
    Problem::not_found(format!("there is no model {name}{there}"))
}

fn known(models: &Models, name: &ModelName) -> String {
    let all: Vec<String> = versions(models, name)
        .rev()
        .map(|v| format!("{} (#{})", v.version, v.serial))
        .collect();
    let more = if all.len() > 10 { ", …" } else { "" };
    format!("{}{more}", all[..all.len().min(10)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::model_version;

    fn models() -> Models {
        [
            ("dga", "1.0.0", 1),
            ("dga", "1.2.0", 2),
            ("dga", "1.1.0", 3),
            ("dgb", "0.1.0", 1),
        ]
        .map(|(name, version, serial)| {
            let v = model_version(name, version, serial);
            ((v.name.clone(), serial), v)
        })
        .into()
    }

    #[test]
    fn every_form_finds_its_version() {
        let models = models();
        for (text, serial) in [
            ("dga", 3),
            ("dga@1.2.0", 2),
            ("dga@#1", 1),
            ("dga#1", 1),
            ("dgb", 1),
        ] {
            assert_eq!(resolve(&models, text).unwrap().serial, serial, "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let models = models();
        let miss = |text: &str| resolve(&models, text).unwrap_err();
        let problem = miss("dga@champion");
        assert_eq!(problem.status, 404);
        assert_eq!(
            problem.detail,
            "model dga has no version or alias \"champion\"; it has 1.1.0 (#3), 1.2.0 (#2), 1.0.0 (#1)"
        );
        let problem = miss("dgs");
        assert!(problem.detail.contains("did you mean"), "{problem}");
        assert!(problem.detail.contains("there are dga, dgb"), "{problem}");
        for bad in ["dga@", "dga@#x", "DGA", ""] {
            assert_eq!(miss(bad).status, 422, "{bad}");
        }
        assert!(
            resolve(&Models::new(), "x")
                .unwrap_err()
                .detail
                .contains("model push")
        );
    }
}
