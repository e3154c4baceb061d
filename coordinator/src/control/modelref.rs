//! `NAME`, `NAME@1.2.0`, `NAME@#3`, `NAME#3`: which model version is meant.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::digest::PackageDigest;
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

/// A version that somebody has at hand and registers before it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) version: semver::Version,
    pub(crate) digest: PackageDigest,
}

/// Versions that are not registered yet, at most one of a model.
pub(crate) type Coming = BTreeMap<ModelName, Known>;

/// The version that a reference means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) name: ModelName,
    pub(crate) serial: u64,
    pub(crate) version: semver::Version,
    pub(crate) digest: PackageDigest,
}

/// The version that `text` means; without a version the newest push, for which those that are `coming`
/// count. Errors: 422 for what is not a reference, 404 for what is not there, with what there is.
pub(crate) fn resolve(models: &Models, coming: &Coming, text: &str) -> Result<Resolved, Problem> {
    let split = text.find(['@', '#']).unwrap_or(text.len());
    let (name, rest) = text.split_at(split);
    let name = ModelName::new(name).map_err(|e| Problem::invalid(e.to_string()))?;
    let all = candidates(models, coming, &name);
    let newest = all.last().ok_or_else(|| {
        let names = models.keys().map(|(name, _)| name).chain(coming.keys());
        no_model(names, &name)
    })?;
    let wanted = rest.strip_prefix('@').unwrap_or(rest);
    if wanted.is_empty() {
        return if rest.is_empty() {
            Ok(newest.clone())
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
        all.iter().find(|v| v.serial == serial)
    } else {
        semver::Version::parse(wanted)
            .ok()
            .and_then(|version| all.iter().find(|v| v.version == version))
    };
    found.cloned().ok_or_else(|| {
        Problem::not_found(format!(
            "model {name} has no version {wanted:?}; it has {}",
            known(&all)
        ))
    })
}

/// All versions of a model, oldest push first.
fn candidates(models: &Models, coming: &Coming, name: &ModelName) -> Vec<Resolved> {
    let mut all: Vec<Resolved> = versions(models, name)
        .map(|v| Resolved {
            name: v.name.clone(),
            serial: v.serial,
            version: v.version.clone(),
            digest: v.digest,
        })
        .collect();
    let more = coming.get(name);
    if let Some(more) = more.filter(|m| all.iter().all(|v| v.version != m.version)) {
        all.push(Resolved {
            name: name.clone(),
            serial: all.last().map_or(0, |v| v.serial) + 1,
            version: more.version.clone(),
            digest: more.digest,
        });
    }
    all
}

/// 404 for a model, with what there is.
pub(crate) fn unknown_model(models: &Models, name: &ModelName) -> Problem {
    no_model(models.keys().map(|(name, _)| name), name)
}

fn no_model<'a>(all: impl Iterator<Item = &'a ModelName>, name: &ModelName) -> Problem {
    let names: BTreeSet<&str> = all.map(ModelName::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let there = match names.len() {
        0 => "; nothing has been pushed yet: `berth model push DIR`".to_owned(),
        n => {
            let more = if n > 10 { ", …" } else { "" };
            let shown = names.iter().take(10).copied().collect::<Vec<_>>();
            let hint = did_you_mean(name.as_str(), &names);
            format!("; there are {}{more}{hint}", shown.join(", "))
        }
    };
    Problem::not_found(format!("there is no model {name}{there}"))
}

fn known(all: &[Resolved]) -> String {
    let all: Vec<String> = all
        .iter()
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
            assert_eq!(
                resolve(&models, &Coming::new(), text).unwrap().serial,
                serial,
                "{text}"
            );
        }
    }

    #[test]
    fn a_version_that_is_coming_is_the_newest_unless_it_is_there_already() {
        let models = models();
        let coming = |version: &str| {
            let known = Known {
                version: version.parse().unwrap(),
                digest: model_version("dga", version, 1).digest,
            };
            Coming::from([("dga".parse().unwrap(), known)])
        };
        let found = resolve(&models, &coming("2.0.0"), "dga").unwrap();
        assert_eq!((found.version.major, found.serial), (2, 4));
        let found = resolve(&models, &coming("1.2.0"), "dga").unwrap();
        assert_eq!(found.serial, 3);
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let models = models();
        let miss = |text: &str| resolve(&models, &Coming::new(), text).unwrap_err();
        let problem = miss("dga@champion");
        assert_eq!(problem.status, 404);
        assert_eq!(
            problem.detail,
            "model dga has no version \"champion\"; it has 1.1.0 (#3), 1.2.0 (#2), 1.0.0 (#1)"
        );
        let problem = miss("dgs");
        assert!(problem.detail.contains("did you mean"), "{problem}");
        assert!(problem.detail.contains("there are dga, dgb"), "{problem}");
        for bad in ["dga@", "dga@#x", "DGA", ""] {
            assert_eq!(miss(bad).status, 422, "{bad}");
        }
        assert!(
            resolve(&Models::new(), &Coming::new(), "x")
                .unwrap_err()
                .detail
                .contains("model push")
        );
    }
}
