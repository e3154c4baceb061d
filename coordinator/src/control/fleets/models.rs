//! Model versions that must be registered.

use berth_model::api::ModelWanted;
use berth_model::id::ModelName;

use super::Draft;
use super::step::{Fields, Step, Todo};
use crate::control::modelref::{Known, unknown_model, versions};

impl Draft<'_> {
    /// What is declared of models. Those at hand count as registered if `with_coming`.
    pub(super) fn models(&mut self, with_coming: bool) {
        let wanted = self.wanted;
        for (name, model) in &wanted.models {
            self.model(name, model, with_coming);
        }
    }

    fn model(&mut self, name: &ModelName, wanted: &ModelWanted, with_coming: bool) {
        let models = &self.world.records.models;
        let path = format!("model.{name}");
        let there = versions(models, name).find(|v| v.version == wanted.version);
        if let Some(there) = there {
            if wanted.digest.is_some_and(|digest| digest != there.digest) {
                let key = if wanted.at_hand { "package" } else { "digest" };
                let message = format!(
                    "{name} {} was pushed before with another content ({}), and a pushed version never \
                     changes: raise `version` in berth.toml",
                    there.version, there.digest
                );
                self.fail(&format!("{path}.{key}"), message);
                return;
            }
            let fields = fields(wanted, there.digest.to_string());
            self.push(name, Some(fields.clone()), fields);
            return;
        }
        match wanted.digest {
            Some(digest) if wanted.at_hand && with_coming => {
                let version = wanted.version.clone();
                let known = Known { version, digest };
                self.coming.insert(name.clone(), known);
                self.push(name, None, fields(wanted, digest.to_string()));
            }
            _ if wanted.at_hand => self.fail(
                &format!("{path}.package"),
                format!(
                    "{name} {} is not registered yet: upload the package and POST /v1/models first",
                    wanted.version
                ),
            ),
            _ => {
                let mut there: Vec<String> = versions(models, name)
                    .map(|v| v.version.to_string())
                    .collect();
                there.reverse();
                let message = if there.is_empty() {
                    unknown_model(models, name).detail
                } else {
                    format!(
                        "model {name} has no version {}; it has {}",
                        wanted.version,
                        there.join(", ")
                    )
                };
                self.fail(
                    &format!("{path}.version"),
                    format!("push it first, or say where its `package` is: {message}"),
                );
            }
        }
    }

    fn push(&mut self, name: &ModelName, old: Option<Fields>, new: Fields) {
        self.steps.push(Step {
            subject: format!("model/{name}"),
            old,
            new: Some(new),
            basis: String::new(),
            adopts: false,
            effects: Vec::new(),
            todo: Todo::Nothing,
        });
    }
}

fn fields(wanted: &ModelWanted, digest: String) -> Fields {
    vec![
        ("version".to_owned(), wanted.version.to_string()),
        ("digest".to_owned(), digest),
    ]
}
