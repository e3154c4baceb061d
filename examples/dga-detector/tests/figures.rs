//! The committed model, its figures, and the manifest that states them belong together.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use dga_detector::model::{FILE, Model};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn metrics() -> serde_json::Value {
    let text = std::fs::read_to_string(here("model/metrics.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_manifest_states_what_was_measured() {
    let text = std::fs::read_to_string(here("berth.toml")).unwrap();
    let manifest = berth_model::manifest::parse(&text, "berth.toml").unwrap();
    let stated = manifest.model.metrics;
    let measured = metrics();
    let measured = measured["held_out"].as_object().unwrap();
    assert_eq!(stated.len(), measured.len());
    for (name, value) in measured {
        assert_eq!(stated.get(name).copied(), value.as_f64(), "{name}");
    }
}

#[test]
fn the_figures_are_of_the_committed_model() {
    let bytes = std::fs::read(here("model").join(FILE)).unwrap();
    let metrics = metrics();
    assert_eq!(metrics["model"]["bytes"], bytes.len());
    let model = Model::from_bytes(&bytes).unwrap();
    assert_eq!(
        metrics["model"]["crc32"],
        format!("{:08x}", model.checksum())
    );
    assert!(bytes.len() <= 600 * 1024);
}

#[test]
fn the_readme_states_what_was_measured() {
    let readme = std::fs::read_to_string(here("README.md")).unwrap();
    let metrics = metrics();
    for group in ["held_out", "recall_seen_families", "recall_unseen_families"] {
        for (name, value) in metrics[group].as_object().unwrap() {
            let row = format!("| `{name}` | {:.4} |", value.as_f64().unwrap());
            assert!(readme.contains(&row), "README.md lacks {row}");
        }
    }
}

#[test]
fn real_names_are_judged_right() {
    let model = Model::load(&here("model")).unwrap();
    let mut scratch = Vec::new();
    let text = std::fs::read_to_string(here("domains.txt")).unwrap();
    assert_eq!(text.lines().count(), 14);
    for (i, name) in text.lines().enumerate() {
        let verdict = model.judge(name, &mut scratch).unwrap();
        // The first half is of people's making.
        assert_eq!(verdict.dga, i >= 7, "{name}: {}", verdict.score);
    }
    for (name, dga) in [
        ("www.google.co.uk", false),
        ("stackoverflow.com", false),
        ("deutsche-bank.de", false),
        ("MÜNCHEN.de", false),
        ("xkcd.com", false),
        ("q8x2v7k1z9w4j6t3.org", true),
        ("5f4dcc3b5aa765d61d8327deb882cf99.info", true),
        ("wvutkjqhxgfzpbn.dyndns.org", true),
    ] {
        let verdict = model.judge(name, &mut scratch).unwrap();
        assert_eq!(verdict.dga, dga, "{name}: {}", verdict.score);
    }
}
