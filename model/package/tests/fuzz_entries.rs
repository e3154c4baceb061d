//! The fuzz targets' functions over a small generated corpus.
#![allow(clippy::unwrap_used, reason = "helpers of tests are test code too")]

mod common;
#[path = "../fuzz/entry.rs"]
mod entry;

use common::{MANIFEST, Tar};

/// Every seed with each of its bytes, at some stride, changed in a few ways, and cut at every one.
fn mutations(seed: &[u8], stride: usize) -> Vec<Vec<u8>> {
    let mut all = vec![seed.to_vec()];
    for at in (0..seed.len()).step_by(stride) {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = seed.to_vec();
            bytes[at] ^= change;
            all.push(bytes);
        }
        all.push(seed[..at].to_vec());
        all.push([&seed[..at], &seed[at / 2..]].concat());
    }
    all
}

#[test]
fn unpacking_holds() {
    let scratch = tempfile::tempdir().unwrap();
    let tar = Tar::new()
        .folder("d/")
        .file("d/f", b"content")
        .link("l", "d/f")
        .end();
    let archive = common::compress(&tar);
    for seed in mutations(&[&[0], &tar[..]].concat(), 61) {
        entry::unpack_archive(&seed, scratch.path());
    }
    for seed in mutations(&[&[1], &archive[..]].concat(), 5) {
        entry::unpack_archive(&seed, scratch.path());
    }
    entry::unpack_archive(&[], scratch.path());
}

#[test]
fn manifests_hold() {
    let example = include_bytes!("../templates/berth.toml");
    for seed in [
        MANIFEST.as_bytes(),
        example,
        b"\xff",
        b"",
        b"[[[[",
        b"a.b.c.d = {x={y=[1,{",
    ] {
        for bytes in mutations(seed, 7) {
            entry::manifest(&bytes);
        }
    }
}
