//! Prometheus' text format: read from modules defensively, and written again with Berth's labels.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

/// Samples of many instances by their families, so that each family is described once.
#[derive(Debug, Default)]
pub(super) struct Merged {
    families: BTreeMap<String, Family>,
    /// Name and labels of the samples: none may be there twice.
    seen: HashSet<String>,
}

#[derive(Debug, Default)]
struct Family {
    kind: Option<String>,
    help: Option<String>,
    samples: Vec<String>,
}

/// A label and its value, unescaped.
pub(super) type Label = (String, String);

impl Merged {
    /// Adds what one instance said, with further labels. What is not understood is left out, line by line.
    pub(super) fn add(&mut self, text: &str, further: &[Label]) {
        let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
        let mut refused: HashSet<&str> = HashSet::new();
        for line in text.lines() {
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.trim_start().splitn(3, [' ', '\t']);
                match (words.next(), words.next(), words.next()) {
                    (Some("TYPE"), Some(name), Some(kind)) if is_metric(name) => {
                        let kind = kind.trim();
                        if KINDS.contains(&kind) && kinds.insert(name, kind).is_none() {
                            let family = self.families.entry(name.to_owned()).or_default();
                            let known = family.kind.get_or_insert_with(|| kind.to_owned());
                            // Two instances that mean different things by one name: the first is believed.
                            if known != kind {
                                refused.insert(name);
                            }
                        }
                    }
                    (Some("HELP"), Some(name), Some(help)) if is_metric(name) => {
                        let family = self.families.entry(name.to_owned()).or_default();
                        family.help.get_or_insert_with(|| plain(help));
                    }
                    _ => {}
                }
                continue;
            }
            let Some(sample) = Sample::parse(line) else {
                continue;
            };
            let name = family_of(sample.name, &kinds);
            if refused.contains(name) {
                continue;
            }
            let series = sample.series(further);
            if self.seen.insert(series.clone()) {
                let family = self.families.entry(name.to_owned()).or_default();
                family.samples.push(format!("{series} {}", sample.value));
            }
        }
    }

    /// The whole text.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            if family.samples.is_empty() {
                continue;
            }
            // Writing to a String cannot fail.
            if let Some(help) = &family.help {
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            let kind = family.kind.as_deref().unwrap_or("untyped");
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for sample in &family.samples {
                text.push_str(sample);
                text.push('\n');
            }
        }
        text
    }
}

const KINDS: [&str; 5] = ["counter", "gauge", "histogram", "summary", "untyped"];

/// The family of a sample: a histogram's and a summary's samples have names of their own.
fn family_of<'a>(name: &'a str, kinds: &BTreeMap<&str, &str>) -> &'a str {
    if kinds.contains_key(name) {
        return name;
    }
    for suffix in ["_bucket", "_sum", "_count"] {
        if let Some(base) = name.strip_suffix(suffix)
            && matches!(kinds.get(base), Some(&"histogram" | &"summary"))
        {
            return base;
        }
    }
    name
}

/// One line with a figure. A time, if it has one, is left out: it is collected again anyway.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<Label>,
    value: &'a str,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
        let (name, rest) = line.split_at(end);
        if !is_metric(name) {
            return None;
        }
        let rest = rest.trim_start();
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), rest),
        };
        let mut words = rest.split_ascii_whitespace();
        let value = words.next().filter(|value| is_number(value))?;
        let time_or_end = words.next();
        let fits = time_or_end.is_none_or(|time| time.parse::<i64>().is_ok());
        (fits && words.next().is_none()).then_some(Self {
            name,
            labels,
            value,
        })
    }
}

impl Sample<'_> {
    /// Its name and labels, with further ones.
    fn series(&self, further: &[Label]) -> String {
        let mut labels: Vec<Label> = Vec::with_capacity(self.labels.len() + further.len());
        for (name, value) in &self.labels {
            let mut name = name.clone();
            // As Prometheus itself does with labels that a target has of its own.
            while further
                .iter()
                .chain(&labels)
                .any(|(known, _)| *known == name)
            {
                name.insert_str(0, "exported_");
            }
            labels.push((name, value.clone()));
        }
        labels.extend(further.iter().cloned());
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        format!("{}{{{}}}", self.name, labels.join(","))
    }
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<Label>, &str)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        if !is_label(name) {
            return None;
        }
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        found.push((name.to_owned(), value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

/// A value up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                // Not of the format: as it is written.
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

/// A help text on its line; what is escaped in it stays so.
fn plain(help: &str) -> String {
    help.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn is_metric(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(fits)
}

fn is_label(name: &str) -> bool {
    is_metric(name) && !name.contains(':')
}

fn is_number(text: &str) -> bool {
    let plain = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    matches!(plain.as_str(), "inf" | "nan") || text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(name: &str, value: &str) -> Label {
        (name.to_owned(), value.to_owned())
    }

    const SAID: &str = "\
# HELP :tensorflow:runs How often\n\
# TYPE :tensorflow:runs counter\n\
:tensorflow:runs{} 3\n\
# TYPE :tensorflow:lat histogram\n\
:tensorflow:lat_bucket{model=\"m \\\"x\\\"\",le=\"10\"} 1\n\
:tensorflow:lat_bucket{model=\"m \\\"x\\\"\",le=\"+Inf\"} 2 1700000000000\n\
:tensorflow:lat_sum{model=\"m \\\"x\\\"\"} NaN\n\
plain 1e-3\n\
plain 9\n\
not a sample\n\
bad{ 1\n\
bad{x=1} 1\n\
1bad 1\n";

    #[test]
    fn instances_are_told_apart_and_a_family_is_described_once() {
        let mut merged = Merged::default();
        for id in ["a", "b"] {
            merged.add(SAID, &[label("instance", id), label("model", "web")]);
        }
        let expected = "\
# TYPE :tensorflow:lat histogram\n\
:tensorflow:lat_bucket{exported_model=\"m \\\"x\\\"\",le=\"10\",instance=\"a\",model=\"web\"} 1\n\
:tensorflow:lat_bucket{exported_model=\"m \\\"x\\\"\",le=\"+Inf\",instance=\"a\",model=\"web\"} 2\n\
:tensorflow:lat_sum{exported_model=\"m \\\"x\\\"\",instance=\"a\",model=\"web\"} NaN\n\
:tensorflow:lat_bucket{exported_model=\"m \\\"x\\\"\",le=\"10\",instance=\"b\",model=\"web\"} 1\n\
:tensorflow:lat_bucket{exported_model=\"m \\\"x\\\"\",le=\"+Inf\",instance=\"b\",model=\"web\"} 2\n\
:tensorflow:lat_sum{exported_model=\"m \\\"x\\\"\",instance=\"b\",model=\"web\"} NaN\n\
# HELP :tensorflow:runs How often\n\
# TYPE :tensorflow:runs counter\n\
:tensorflow:runs{instance=\"a\",model=\"web\"} 3\n\
:tensorflow:runs{instance=\"b\",model=\"web\"} 3\n\
# TYPE plain untyped\n\
plain{instance=\"a\",model=\"web\"} 1e-3\n\
plain{instance=\"b\",model=\"web\"} 1e-3\n";
        assert_eq!(merged.render(), expected);
    }

    #[test]
    fn of_two_meanings_of_a_name_the_first_is_believed() {
        let mut merged = Merged::default();
        merged.add("# TYPE x counter\nx 1\n", &[label("instance", "a")]);
        merged.add("# TYPE x gauge\nx 2\n", &[label("instance", "b")]);
        assert_eq!(merged.render(), "# TYPE x counter\nx{instance=\"a\"} 1\n");
    }

    fn check(text: &str, instances: usize) -> Result<(), TestCaseError> {
        let mut described = HashSet::new();
        let mut series = HashSet::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# TYPE ") {
                prop_assert!(described.insert(comment.split(' ').next().unwrap().to_owned()));
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let sample = Sample::parse(line);
            prop_assert!(sample.is_some(), "{:?}", line);
            let sample = sample.unwrap();
            let of = sample.labels.iter().filter(|(name, _)| name == "instance");
            let of: Vec<&Label> = of.collect();
            prop_assert_eq!(of.len(), 1);
            prop_assert!(of[0].1.parse::<usize>().unwrap() < instances);
            prop_assert!(
                series.insert((sample.name.to_owned(), sample.labels)),
                "{}",
                line
            );
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn whatever_modules_say_what_comes_out_is_valid(
            texts in prop::collection::vec(
                "((# (TYPE|HELP) )?[a-c:]{0,2}(_sum|_bucket)?(\\{((instance|a|le)=\"[a\\\\\"n\u{e9}]{0,3}\",?){0,2}\\})?\
                  ( (counter|histogram|1|-2e3|NaN|x)){0,2}\n){0,12}",
                1..4,
            ),
        ) {
            let mut merged = Merged::default();
            for (number, text) in texts.iter().enumerate() {
                merged.add(text, &[label("instance", &number.to_string())]);
            }
            check(&merged.render(), texts.len())?;
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
            let mut merged = Merged::default();
            merged.add(&text, &[label("instance", "0")]);
            check(&merged.render(), 1)?;
        }

        #[test]
        fn label_values_come_back(value in "[\\PC\n\"\\\\]{0,30}") {
            let mut merged = Merged::default();
            merged.add("x 1", &[label("instance", &value)]);
            let text = merged.render();
            let line = text.lines().nth(1).unwrap();
            prop_assert_eq!(Sample::parse(line).unwrap().labels, vec![label("instance", &value)]);
        }
    }
}
