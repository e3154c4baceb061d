#![no_main]

use std::sync::LazyLock;

#[path = "../entry.rs"]
#[allow(dead_code)]
mod entry;

static SCRATCH: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::unpack_archive(data, SCRATCH.path()));
