//! Plans as people read them.

use berth_model::api::{ChangeAction, FleetChange, FleetPlan};
use berth_model::fleetfile::Places;

const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const RED: &str = "\u{1b}[31m";
const PLAIN: &str = "\u{1b}[0m";

/// What would change.
pub(super) fn plan(plan: &FleetPlan, places: &Places, colours: bool) -> String {
    let mut text = String::new();
    for one in &plan.changes {
        text.push_str(&change(one, colours));
    }
    if !plan.changes.is_empty() {
        text.push('\n');
    }
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {}\n", clean(&places.locate(warning))));
    }
    if !plan.leftover.is_empty() {
        text.push_str(&format!(
            "not declared any more: {}; --prune removes it\n",
            plan.leftover.join(", ")
        ));
    }
    if !plan.adopted.is_empty() {
        text.push_str(&format!(
            "made by hand or another fleet's, from now on fleet {}'s: {}\n",
            plan.fleet,
            plan.adopted.join(", ")
        ));
    }
    text.push_str(&summary(plan));
    text
}

fn summary(plan: &FleetPlan) -> String {
    if plan.changes.is_empty() && plan.unchanged == 0 {
        return "Nothing to do: the files declare nothing.\n".to_owned();
    }
    let declared = match plan.unchanged {
        0 => "nothing is".to_owned(),
        1 => "1 thing is".to_owned(),
        n => format!("{n} things are"),
    };
    if plan.changes.is_empty() {
        return format!("Nothing to do: {declared} as declared.\n");
    }
    format!(
        "{} to create, {} to change, {} to delete; {declared} as declared.\n",
        count(plan, ChangeAction::Create),
        count(plan, ChangeAction::Change),
        count(plan, ChangeAction::Delete),
    )
}

/// What was done.
pub(super) fn done(plan: &FleetPlan) -> String {
    format!(
        "Applied: {} created, {} changed, {} deleted.\n",
        count(plan, ChangeAction::Create),
        count(plan, ChangeAction::Change),
        count(plan, ChangeAction::Delete),
    )
}

fn count(plan: &FleetPlan, action: ChangeAction) -> usize {
    plan.changes.iter().filter(|c| c.action == action).count()
}

fn change(change: &FleetChange, colours: bool) -> String {
    let (sign, colour) = match change.action {
        ChangeAction::Create => ("+", GREEN),
        ChangeAction::Change => ("~", YELLOW),
        ChangeAction::Delete => ("-", RED),
    };
    let head = format!("{sign} {}", change.subject);
    let mut text = if colours {
        format!("{colour}{head}{PLAIN}\n")
    } else {
        format!("{head}\n")
    };
    let width = change.fields.iter().map(|f| f.field.chars().count()).max();
    let width = width.unwrap_or(0);
    for field in &change.fields {
        let value = match (&field.old, &field.new) {
            (Some(old), Some(new)) => format!("{} → {}", clean(old), clean(new)),
            (Some(old), None) if change.action == ChangeAction::Delete => clean(old),
            (Some(old), None) => format!("{} → (gone)", clean(old)),
            (None, Some(new)) if change.action == ChangeAction::Create => clean(new),
            (None, Some(new)) => format!("(none) → {}", clean(new)),
            (None, None) => String::new(),
        };
        text.push_str(&format!("    {:<width$}  {value}\n", clean(&field.field)));
    }
    for effect in &change.effects {
        text.push_str(&format!("  * {}\n", clean(&effect.message)));
    }
    text
}

/// Values are other people's: control characters never reach the terminal, and empty ones can be seen.
fn clean(text: &str) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    text.chars()
        .flat_map(|c| {
            let escaped: Vec<char> = if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            };
            escaped
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::api::{Effect, EffectKind, FieldChange};
    use berth_model::fleetfile::{self, Source};

    fn field(field: &str, old: Option<&str>, new: Option<&str>) -> FieldChange {
        FieldChange {
            field: field.into(),
            old: old.map(Into::into),
            new: new.map(Into::into),
        }
    }

    fn effect(kind: EffectKind, message: &str) -> Effect {
        Effect {
            kind,
            count: 1,
            instances: Vec::new(),
            message: message.into(),
        }
    }

    fn example() -> FleetPlan {
        let create = FleetChange {
            subject: "service/new".into(),
            action: ChangeAction::Create,
            fields: vec![
                field("model", None, Some("dga@1.0.0")),
                field("replicas", None, Some("2")),
            ],
            effects: vec![effect(EffectKind::Start, "2 instances start")],
        };
        let changed = FleetChange {
            subject: "service/web".into(),
            action: ChangeAction::Change,
            fields: vec![
                field("replicas", Some("1"), Some("3")),
                field("pool", None, Some("gpu")),
                field("env.LOG", Some("in\u{1b}fo"), None),
                field("env.EMPTY", Some("x"), Some("")),
            ],
            effects: vec![
                effect(EffectKind::Replace, "1 instance is replaced: web.1.0.1"),
                effect(EffectKind::Start, "2 instances start"),
            ],
        };
        let gone = FleetChange {
            subject: "job/score".into(),
            action: ChangeAction::Delete,
            fields: vec![field("model", Some("dga@1.0.0"), None)],
            effects: vec![effect(
                EffectKind::Stop,
                "its output and its logs are removed",
            )],
        };
        FleetPlan {
            fleet: "soc".parse().unwrap(),
            changes: vec![create, changed, gone],
            unchanged: 1,
            adopted: vec!["service/web".into()],
            leftover: vec!["pool/old".into()],
            warnings: vec!["service.web.pool: there is no pool gpu".into()],
            versions: Default::default(),
        }
    }

    #[test]
    fn a_plan_reads_well() {
        let source = Source {
            name: "fleet.toml",
            text: "[service.web]\nmodel = \"dga\"\npool = \"gpu\"\n",
        };
        let places = fleetfile::parse(&[source]).places;
        let text = plan(&example(), &places, false);
        assert_eq!(text, include_str!("../../../tests/golden/plan.txt"));
        assert_eq!(
            done(&example()),
            "Applied: 1 created, 1 changed, 1 deleted.\n"
        );
    }

    #[test]
    fn colours_are_only_where_they_are_welcome() {
        let places = Places::default();
        let coloured = plan(&example(), &places, true);
        for colour in [GREEN, YELLOW, RED] {
            assert!(coloured.contains(colour));
        }
        assert!(!plan(&example(), &places, false).contains('\u{1b}'));
        let nothing = FleetPlan {
            unchanged: 2,
            ..FleetPlan::default()
        };
        let text = plan(&nothing, &places, true);
        assert_eq!(text, "Nothing to do: 2 things are as declared.\n");
    }
}
