//! That the documents have what the programs have: every page is found, every key, every condition.

use std::path::PathBuf;

use anyhow::{Context, Result};
use berth_model::node::{Condition, RuntimeKind};
use berth_tests::tests_folder;

fn root() -> PathBuf {
    tests_folder().join("..")
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

#[test]
fn every_page_is_found_from_the_readme() -> Result<()> {
    let readme = read("README.md")?;
    let mut pages = 0;
    for page in std::fs::read_dir(root().join("docs"))? {
        let name = page?.file_name();
        let name = name.to_str().context("UTF-8")?;
        let link = format!("](docs/{name})");
        assert!(readme.contains(&link), "README.md has no link to {name}");
        pages += 1;
    }
    assert!(pages > 15, "{pages}");
    Ok(())
}

/// The keys of a commented configuration file, those of its tables included; those of labels are anybody's.
fn keys(text: &str) -> Vec<&str> {
    let plain = |key: &&str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let mut table = "";
    let mut keys = Vec::new();
    for line in text.lines().map(|line| line.trim_start_matches('#')) {
        if line.starts_with('[') {
            table = line;
        }
        let key = line.split_once(" = ").map(|(key, _)| key).filter(plain);
        keys.extend(key.filter(|_| table != "[labels]"));
    }
    keys
}

#[test]
fn every_key_of_the_shipped_configuration_is_explained() -> Result<()> {
    for (file, pages) in [
        (
            "coordinator",
            &["operations", "relay", "kubernetes"] as &[&str],
        ),
        ("agent", &["nodes", "relay", "docker", "isolation"]),
        ("gateway", &["gateway"]),
    ] {
        let shipped = read(&format!("systemd/{file}.toml"))?;
        let texts: Vec<String> = pages
            .iter()
            .map(|page| read(&format!("docs/{page}.md")))
            .collect::<Result<_>>()?;
        let explained = |key: &str| {
            let apart = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            let mut all = texts.iter().flat_map(|text| text.split(apart));
            all.any(|word| word == key)
        };
        let keys = keys(&shipped);
        assert!(keys.len() > 10, "{file}: {keys:?}");
        for key in keys {
            assert!(explained(key), "{file}.toml: {key} is on none of {pages:?}");
        }
    }
    Ok(())
}

#[test]
fn every_condition_of_a_node_is_explained() -> Result<()> {
    let page = read("docs/operations.md")?;
    let (_, part) = page
        .split_once("### Conditions of nodes")
        .context("the heading")?;
    let rows: Vec<&str> = part
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .collect();
    let runtimes = [RuntimeKind::Process, RuntimeKind::Docker].map(|kind| kind.to_string());
    for kind in runtimes.iter().map(String::as_str).chain(Condition::ALL) {
        let named = format!("`{kind}`");
        assert!(
            rows.iter().any(|row| row.contains(&named)),
            "{kind} in {rows:?}"
        );
    }
    Ok(())
}
