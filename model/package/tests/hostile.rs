//! What must be refused, with nothing left behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests are test code too")]

mod common;

use std::io::Read;

use berth_model::digest::PackageDigest;
use berth_package::{Limits, PackageError, Refused, unpack, verify_reader};
use common::{Tar, compress, limits, refused, unpacked};
use proptest::prelude::*;

#[test]
fn the_base_of_these_tests_is_fine() {
    let (_temp, result) = unpacked(
        &Tar::new()
            .folder("d/")
            .file("d/f", b"x")
            .link("l", "d/f")
            .archive(),
    );
    result.unwrap();
}

#[test]
fn names_are_refused() {
    let with = |path: &[u8]| refused(&Tar::new().entry(b'0', path, b"", 0o644, b"x").archive());
    assert!(with(b"/etc/passwd").contains("is absolute"));
    assert!(with(b"../evil").contains("\"..\""));
    assert!(with(b"d/../../evil").contains("\"..\""));
    assert!(with(b"./f").contains("\"..\""));
    assert!(with(b"f/").contains("empty part"));
    assert!(with(b"a\nb").contains("control"));
    assert!(with(b"a\x1b[2J").contains("control"));
    assert!(with(b"\xff\xfe").contains("not UTF-8"));
    assert!(with("a\u{202e}".as_bytes()).contains("control"));
    assert!(with(b"").contains("is empty"));
    assert!(with(b"no/folder").contains("folder that comes before"));
    let long = |path: String| {
        let mut records = Vec::new();
        let length = path.len() + 6 + 1;
        let length = length + (length + 4).to_string().len();
        records.extend_from_slice(format!("{length} path={path}\n").as_bytes());
        let tar = Tar::new()
            .entry(b'x', b"pax", b"", 0o644, &records)
            .file("short", b"x");
        refused(&tar.archive())
    };
    assert!(
        long("x".repeat(256)).contains("too long"),
        "{}",
        long("x".repeat(256))
    );
    assert!(long(["y"; 600].join("/")).contains("too long"));
    assert!(long("../evil".into()).contains("\"..\""));
}

#[test]
fn clashes_are_refused() {
    let twice = |a: &str, b: &str| refused(&Tar::new().file(a, b"1").file(b, b"2").archive());
    assert!(twice("f", "f").contains("there twice"));
    assert!(twice("f", "F").contains("differ only in case"));
    assert!(twice("é", "e\u{301}").contains("differ only in case"));
    assert!(twice("berth.toml", "x").contains("there twice"));
    assert!(refused(&Tar::new().folder("d").file("d", b"").archive()).contains("there twice"));
    assert!(refused(&Tar::new().file("BERTH.toml", b"").archive()).contains("differ only"));
}

#[test]
fn kinds_and_modes_are_refused() {
    let kind = |kind: u8| {
        refused(
            &Tar::new()
                .entry(kind, b"e", b"berth.toml", 0o644, b"")
                .archive(),
        )
    };
    assert!(kind(b'1').contains("hard link"));
    assert!(kind(b'3').contains("device"));
    assert!(kind(b'4').contains("device"));
    assert!(kind(b'6').contains("FIFO"));
    assert!(kind(b'S').contains("sparse"));
    for other in [b'7', b'g', b'L', b'K', b'V', b'M', b'D', 200] {
        assert!(
            kind(other).contains("not supported"),
            "{}",
            char::from(other)
        );
    }
    for mode in [0o4755, 0o2755, 0o1755] {
        assert!(
            refused(&Tar::new().entry(b'0', b"f", b"", mode, b"").archive()).contains("set-uid")
        );
        assert!(
            refused(&Tar::new().entry(b'5', b"d", b"", mode, b"").archive()).contains("set-uid")
        );
    }
}

#[test]
fn links_are_refused() {
    let link =
        |path: &str, target: &str| refused(&Tar::new().folder("d").link(path, target).archive());
    assert!(link("l", "/etc/passwd").contains("absolute"));
    assert!(link("l", "..").contains("leads out"));
    assert!(link("d/l", "../../etc").contains("leads out"));
    assert!(link("l", "gone").contains("leads to nothing"));
    assert!(link("l", "l").contains("loop"));
    assert!(link("l", "a\nb").contains("control"));
    let through = Tar::new().folder("d").link("l", "d").file("l/f", b"x");
    assert!(refused(&through.archive()).contains("folder that comes before"));
    let replaced = Tar::new().folder("d").link("l", "d").folder("l");
    assert!(refused(&replaced.archive()).contains("there twice"));
}

#[test]
fn header_tricks_are_refused() {
    let twisted =
        |change: fn(&mut [u8])| refused(&Tar::new().file("f", b"").twist(change).archive());
    // Sizes in two forms, or none.
    assert!(
        twisted(|h| h[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x01"))
            .contains("one form")
    );
    assert!(twisted(|h| h[124..136].fill(0xff)).contains("one form"));
    assert!(twisted(|h| h[124..136].copy_from_slice(b"-0000000001\0")).contains("one form"));
    assert!(twisted(|h| h[124..136].copy_from_slice(b"77777777777\0")).contains("bytes in files"));
    assert!(
        twisted(|h| h[124..136].copy_from_slice(b"\x80\0\0\0\x3f\xff\xff\xff\xff\xff\xff\xff"))
            .contains("bytes in files")
    );
    assert!(twisted(|h| h[100..108].fill(b'x')).contains("mode"));
    assert!(twisted(|h| h[257..265].fill(0)).contains("not a POSIX"));
    assert!(
        twisted(|h| {
            h[257..265].copy_from_slice(b"ustar  \0");
            h[345] = 1;
        })
        .contains("GNU extensions")
    );
    let damaged = Tar::new().file("f", b"");
    let mut damaged = damaged.0;
    let last = damaged.len() - 512;
    damaged[last] ^= 1;
    assert!(refused(&Tar(damaged).archive()).contains("checksum"));
    // A link or folder with data would shift everything after it for a reader that skips none.
    assert!(
        refused(&Tar::new().entry(b'5', b"d", b"", 0o755, b"x").archive()).contains("has a size")
    );
    assert!(
        refused(
            &Tar::new()
                .entry(b'2', b"l", b"berth.toml", 0o777, b"x")
                .archive()
        )
        .contains("has a size")
    );
    for records in [
        "11 size=99\n",
        "22 GNU.sparse.major=1\n",
        "25 SCHILY.realsize=99999\n",
    ] {
        let tar = Tar::new()
            .entry(b'x', b"p", b"", 0o644, records.as_bytes())
            .file("f", b"x");
        assert!(
            refused(&tar.archive()).contains("not supported"),
            "{records}"
        );
    }
    let row = Tar::new()
        .entry(b'x', b"p", b"", 0o644, b"")
        .entry(b'x', b"p", b"", 0o644, b"");
    assert!(refused(&row.file("f", b"").archive()).contains("in a row"));
    let huge = vec![b'a'; 20 << 10];
    let huge = Tar::new()
        .entry(b'x', b"p", b"", 0o644, &huge)
        .file("f", b"");
    assert!(refused(&huge.archive()).contains("too long a one"));
    let last = Tar::new().entry(b'x', b"p", b"", 0o644, b"");
    assert!(refused(&last.archive()).contains("truncated"));
}

#[test]
fn ends_are_exact() {
    let good = Tar::new().file("f", &[7; 3000]);
    let tar = good.clone().end();
    for cut in [
        tar.len() - 512,
        tar.len() - 1024,
        tar.len() - 1025,
        2000,
        512,
        100,
        0,
    ] {
        assert!(
            refused(&compress(&tar[..cut])).contains("truncated"),
            "{cut}"
        );
    }
    let archive = compress(&tar);
    for cut in 0..archive.len() {
        let error = refused(&archive[..cut]);
        assert!(error.contains("truncated"), "{cut}: {error}");
    }
    let mut junk = archive.clone();
    junk.push(0);
    assert!(refused(&junk).contains("junk after the end of the compressed data"));
    let twice = [&archive[..], &archive[..]].concat();
    assert!(refused(&twice).contains("junk"));
    let mut padded = tar.clone();
    padded.resize(padded.len() + 9 * 512, 0);
    unpacked(&compress(&padded)).1.unwrap();
    padded.resize(padded.len() + 12 * 512, 0);
    assert!(refused(&compress(&padded)).contains("junk after the end of the tar"));
    let mut hidden = tar.clone();
    hidden.extend_from_slice(&tar);
    assert!(refused(&compress(&hidden)).contains("junk after the end of the tar"));
    let mut dirty = good.0.clone();
    *dirty.last_mut().unwrap() = 1;
    assert!(refused(&Tar(dirty).archive()).contains("junk after the end of the data"));
    assert!(refused(b"not zstd at all, surely").contains("compressed data cannot be read"));
    assert!(refused(&tar).contains("compressed data cannot be read"));
}

#[test]
fn too_much_is_refused() {
    let mut tar = Tar::new();
    for number in 0..200 {
        tar = tar.file(&format!("f{number}"), b"");
    }
    assert!(refused(&tar.archive()).contains("too many entries"));
    let zeros = Tar::new().file("zeros", &vec![0; 70 << 20]);
    assert!(refused(&zeros.archive()).contains("compression bomb"));
    let small = Limits {
        total_bytes: 1000,
        ..limits()
    };
    let archive = Tar::new().file("f", &[1; 1001]).archive();
    let error = verify_reader(&archive[..], None, small).unwrap_err();
    assert!(
        matches!(
            error,
            PackageError::Refused(Refused::TooMuch { limit: 1000, .. })
        ),
        "{error}"
    );
    assert!(error.is_permanent());
    // A frame that asks for a window of 256 MiB; the limit is 128.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.include_contentsize(false).unwrap();
    std::io::Write::write_all(&mut encoder, &Tar::new().end()).unwrap();
    assert!(refused(&encoder.finish().unwrap()).contains("memory"));
}

#[test]
fn manifests_are_checked() {
    let with = |manifest: &[u8]| refused(&Tar::default().file("berth.toml", manifest).archive());
    assert!(refused(&Tar::default().file("f", b"").archive()).contains("berth.toml is missing"));
    assert!(
        refused(
            &Tar::default()
                .file("f", b"")
                .link("berth.toml", "f")
                .archive()
        )
        .contains("is missing")
    );
    assert!(with(b"\xff").contains("not UTF-8"));
    assert!(with(b"[package]\nnam = 1").contains("berth.toml:2:1: unknown key \"nam\""));
    assert!(with(&vec![b' '; 2 << 20]).contains("too long"));
    let named = |from: &str, to: &str| with(common::MANIFEST.replace(from, to).as_bytes());
    assert!(named("\".\"", "\"model\"").contains("[model] path is \"model\", which is not in"));
    assert!(named("\"server\"", "\"./server\"").contains("[module] command"));
    let manifest = common::MANIFEST.replace("\"server\"", "\"./server\"");
    let plain = Tar::default()
        .file("berth.toml", manifest.as_bytes())
        .file("server", b"#!/bin/sh");
    assert!(refused(&plain.archive()).contains("is not executable"));
}

#[test]
fn the_wrong_digest_is_refused_and_a_reader_s_error_passed_on() {
    let archive = Tar::new().archive();
    let wrong = PackageDigest::from_bytes([9; 32]);
    let temp = tempfile::tempdir().unwrap();
    let error = unpack(&archive[..], wrong, temp.path(), limits()).unwrap_err();
    assert!(
        matches!(error, PackageError::Digest { expected, .. } if expected == wrong),
        "{error}"
    );
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("connection lost"))
        }
    }
    let reader = (&archive[..20]).chain(Broken);
    let error = unpack(reader, wrong, temp.path(), limits()).unwrap_err();
    assert!(
        matches!(&error, PackageError::Io { source, .. } if source.to_string() == "connection lost")
    );
    assert!(!error.is_permanent());
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[derive(Debug, Clone)]
enum Piece {
    File(Vec<u8>, Vec<u8>, u32),
    Folder(Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    Other(u8, Vec<u8>),
    Pax(Vec<u8>),
    Junk(Vec<u8>),
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "A",
        "..",
        ".",
        "",
        "é",
        "x\u{7}",
        "berth.toml",
    ]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/").into_bytes());
    prop_oneof![8 => path, 1 => prop::collection::vec(any::<u8>(), 0..12)]
}

fn pieces() -> impl Strategy<Value = Piece> {
    let modes =
        prop_oneof![6 => Just(0o644), 4 => Just(0o755), 1 => any::<u16>().prop_map(u32::from)];
    prop_oneof![
        5 => (names(), prop::collection::vec(any::<u8>(), 0..700), modes)
            .prop_map(|(path, data, mode)| Piece::File(path, data, mode)),
        5 => names().prop_map(Piece::Folder),
        4 => (names(), names()).prop_map(|(path, target)| Piece::Link(path, target)),
        1 => (any::<u8>(), names()).prop_map(|(kind, path)| Piece::Other(kind, path)),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Piece::Pax),
        1 => prop::collection::vec(any::<u8>(), 0..600).prop_map(Piece::Junk),
    ]
}

fn assemble(pieces: Vec<Piece>) -> Tar {
    pieces
        .into_iter()
        .fold(Tar::new(), |tar, piece| match piece {
            Piece::File(path, data, mode) => tar.entry(b'0', &path, b"", mode & 0o7777, &data),
            Piece::Folder(path) => tar.entry(b'5', &path, b"", 0o755, b""),
            Piece::Link(path, target) => tar.entry(b'2', &path, &target, 0o777, b""),
            Piece::Other(kind, path) => tar.entry(kind, &path, b"a", 0o644, b""),
            Piece::Pax(bytes) => tar.entry(b'x', b"p", b"", 0o644, &bytes),
            Piece::Junk(bytes) => tar.padded(&bytes),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever is in the archive: it is refused and leaves nothing, or it becomes a folder in which
    /// no link leads out and no name is odd. `unpacked` asserts the former.
    #[test]
    fn hostile_archives_are_refused_or_harmless(pieces in prop::collection::vec(pieces(), 0..8)) {
        let (_temp, result) = unpacked(&assemble(pieces).archive());
        if let Ok(package) = result {
            check_folder(&package.path, &package.path)?;
        }
    }

    #[test]
    fn damaged_archives_are_refused_or_harmless(
        at in any::<prop::sample::Index>(),
        byte: u8,
        raw: bool,
    ) {
        let mut bytes = Tar::new().folder("d").file("d/f", &[3; 1500]).link("l", "d").end();
        if !raw {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut archive = compress(&bytes);
        if raw {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        let (_temp, result) = unpacked(&archive);
        if let Ok(package) = result {
            check_folder(&package.path, &package.path)?;
        }
    }
}

fn check_folder(root: &std::path::Path, folder: &std::path::Path) -> Result<(), TestCaseError> {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        prop_assert!(kind.is_dir() || kind.is_file() || kind.is_symlink());
        prop_assert!(
            entry
                .path()
                .canonicalize()
                .unwrap()
                .starts_with(root.canonicalize().unwrap())
        );
        if kind.is_dir() {
            check_folder(root, &entry.path())?;
        }
    }
    Ok(())
}
