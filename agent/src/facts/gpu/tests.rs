//! Through a library of the tests' own: what NVIDIA's does with GPUs that are lost is hard to have otherwise.
//! `tests/tests/machines.rs` looks at real ones.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

/// A library over the GPUs that a file beside it describes.
fn library(dir: &Path) -> Gpus {
    let (source, library) = (dir.join("nvml.c"), dir.join("libnvidia-ml.so.1"));
    fs::write(&source, include_str!("fake_nvml.c")).unwrap();
    let file = format!("-DFAKE_NVML_FILE=\"{}\"", dir.join("gpus").display());
    // Rust's own linker on this platform.
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg(file)
        .status()
        .unwrap();
    assert!(built.success());
    Gpus::through(library)
}

fn describe(dir: &Path, gpus: &str) {
    fs::write(dir.join("gpus"), gpus).unwrap();
}

fn uuids(look: &Look) -> Vec<&str> {
    look.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect()
}

#[test]
fn a_machine_without_the_library_has_no_gpu() {
    let mut gpus = Gpus::through("/nonexistent/libnvidia-ml.so.1".into());
    assert_eq!(gpus.look(), (Look::default(), None));
}

#[test]
fn gpus_and_their_parts_are_found_with_what_they_do() {
    let dir = tempfile::tempdir().unwrap();
    describe(dir.path(), "whole a 2000000\ndivided b 3000000\n");
    let mut gpus = library(dir.path());
    let (look, condition) = gpus.look();
    assert_eq!(condition, None);
    assert_eq!(uuids(&look), ["GPU-a", "MIG-b-1", "MIG-b-2"]);
    assert_eq!(
        look.gpus[0],
        Gpu {
            uuid: "GPU-a".into(),
            name: "NVIDIA H200".into(),
            memory_bytes: 2_000_000,
            driver: "570.86.15".into(),
        }
    );
    assert_eq!(look.gpus[2].memory_bytes, 1_500_000);
    let busy = look.busy.iter().map(|gpu| gpu.busy_percent);
    assert!(busy.eq([Some(42), None, None]));
    assert_eq!(look.busy[0].memory_used_bytes, 1000);
    // Parts come and go as somebody divides it anew: nothing is wrong.
    describe(dir.path(), "whole a 2000000\nwhole b 3000000\n");
    let (look, condition) = gpus.look();
    assert_eq!((uuids(&look), condition), (vec!["GPU-a", "GPU-b"], None));
    describe(dir.path(), "whole a 2000000\ndivided b 3000000\n");
    assert_eq!(gpus.look().1, None);
}

#[test]
fn a_gpu_that_does_not_tell_everything_is_one_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    describe(dir.path(), "shared a 0\n");
    let (look, condition) = library(dir.path()).look();
    assert_eq!((uuids(&look), condition), (vec!["GPU-a"], None));
    assert_eq!(look.gpus[0].memory_bytes, 0);
    assert_eq!(look.busy[0].busy_percent, Some(42));
}

#[test]
fn a_gpu_that_falls_off_is_a_condition_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    describe(dir.path(), "whole a 1\nwhole b 1\n");
    let mut gpus = library(dir.path());
    assert_eq!(gpus.look().1, None);
    for (gone, says) in [
        ("whole a 1\nlost b 1\n", "GPU 1 does not answer"),
        ("whole a 1\n", "GPU-b (NVIDIA H200) was here"),
        ("broken\n", "the NVIDIA driver does not answer"),
    ] {
        describe(dir.path(), gone);
        let (look, condition) = gpus.look();
        assert!(!uuids(&look).contains(&"GPU-b"));
        let condition = condition.unwrap();
        assert_eq!(condition.kind, Condition::GPU);
        assert!(condition.message.contains(says), "{}", condition.message);
    }
    describe(dir.path(), "whole a 1\nwhole b 1\n");
    let (look, condition) = gpus.look();
    assert_eq!((uuids(&look), condition), (vec!["GPU-a", "GPU-b"], None));
}

#[test]
fn no_driver_is_no_gpu_and_another_version_s_is_a_condition() {
    let dir = tempfile::tempdir().unwrap();
    describe(dir.path(), "unloaded\n");
    let mut gpus = library(dir.path());
    assert_eq!(gpus.look(), (Look::default(), None));
    describe(dir.path(), "mismatch\n");
    let (look, condition) = gpus.look();
    assert!(look.gpus.is_empty() && condition.is_some());
    // The driver is loaded later, without a restart of the agent.
    describe(dir.path(), "whole a 1\n");
    assert_eq!(uuids(&gpus.look().0), ["GPU-a"]);
}
