//! Folder to archive to folder.
#![allow(clippy::unwrap_used, reason = "helpers of tests are test code too")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use berth_package::{
    EntryKind, Limits, PackageError, Refused, build, build_with_progress, inspect, lookup, remove,
    sweep, unpack, verify,
};
use common::{MANIFEST, tree};
use proptest::prelude::*;

/// The identity of a small package. It must never change: fleets are full of such names.
const PINNED: &str = "sha256:c629c3f64c35ca531100e9bd41573d75d818c28f9cb395234c9acf6df9199297";

fn package(root: &Path, further: &[&str]) {
    fs::create_dir_all(root).unwrap();
    fs::write(root.join("berth.toml"), MANIFEST).unwrap();
    tree(root, further);
}

fn unpack_file(
    archive: &Path,
    store: &Path,
) -> Result<berth_package::UnpackedPackage, PackageError> {
    let digest = verify(archive, None)?.digest;
    unpack(
        fs::File::open(archive).unwrap(),
        digest,
        store,
        Limits::default(),
    )
}

#[test]
fn what_goes_in_comes_out_read_only() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, out, store) = (
        temp.path().join("d"),
        temp.path().join("p"),
        temp.path().join("s"),
    );
    let deep = ["long-name-of-a-folder"; 35].join("/");
    let deep_file = format!("{deep}/{}=deep", "x".repeat(150));
    let entries = [
        "empty/",
        "a/b=hello",
        "a.b=",
        "!bin/server=#!/bin/sh",
        "a/l>../bin/server",
        &deep_file,
    ];
    package(&dir, &entries);
    fs::write(dir.join("big"), vec![5; 3_000_000]).unwrap();
    fs::set_permissions(dir.join("empty"), fs::Permissions::from_mode(0o2775)).unwrap();
    let mut seen = Vec::new();
    let built =
        build_with_progress(&dir, &out, &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(seen.last().map(|(done, total)| done == total), Some(true));
    assert_eq!(
        (built.files, built.version.to_string().as_str()),
        (6, "0.1.0")
    );
    assert_eq!(built.archive_size, fs::metadata(&out).unwrap().len());
    assert_eq!(
        built.archive.hex(),
        blake3::hash(&fs::read(&out).unwrap()).to_hex().as_str()
    );
    assert_eq!(verify(&out, Some(built.digest)).unwrap(), built);
    let inspected = inspect(&out).unwrap();
    assert_eq!(inspected.summary, built);
    assert_eq!(
        inspected.index.get("a/l").unwrap().kind,
        EntryKind::Link {
            target: "../bin/server".into()
        }
    );
    let json = serde_json::to_value(&inspected).unwrap();
    assert_eq!(json["index"]["entries"][0]["kind"], "dir");

    let unpacked = unpack_file(&out, &store).unwrap();
    assert_eq!(unpacked.path, store.join(built.digest.hex()));
    assert_eq!(unpacked.manifest, built.manifest);
    let at = |path: &str| unpacked.path.join(path);
    let mode = |path: &str| fs::symlink_metadata(at(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(fs::read(at("big")).unwrap(), vec![5; 3_000_000]);
    assert_eq!(fs::read_to_string(at("a/l")).unwrap(), "#!/bin/sh");
    assert_eq!(
        fs::read_to_string(at(&format!("{deep}/{}", "x".repeat(150)))).unwrap(),
        "deep"
    );
    assert_eq!(
        (mode("bin/server"), mode("a/b"), mode("empty"), mode("")),
        (0o555, 0o444, 0o555, 0o555)
    );

    // The unpacked folder is the same package, and so is the same folder packed again.
    let again = build(&unpacked.path, &temp.path().join("again")).unwrap();
    assert_eq!(again, built);
    assert!(remove(&store, built.digest).unwrap());
    assert!(!remove(&store, built.digest).unwrap());
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
}

#[test]
fn the_digest_is_of_the_content_alone() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, out) = (temp.path().join("d"), temp.path().join("p"));
    package(&dir, &["m/w=weights", "!server=x", "l>m"]);
    let built = build(&dir, &out).unwrap();
    // Another compressor level, another order, other times and owners: the same package.
    let other = common::Tar::new()
        .entry(b'0', b"server", b"", 0o711, b"x")
        .folder("m/")
        .link("l", "m")
        .file("m/w", b"weights")
        .archive();
    assert_eq!(common::digest(&other), built.digest);
    assert_eq!(built.digest.to_string(), PINNED);
    for change in ["m/w=Weights", "m/v=weights", "!m/w=weights"] {
        let dir = temp
            .path()
            .join(blake3::hash(change.as_bytes()).to_hex().as_str());
        package(&dir, &["m/w=weights", "!server=x", "l>m"]);
        tree(&dir, &[change]);
        assert_ne!(build(&dir, &out).unwrap().digest, built.digest, "{change}");
    }
}

#[test]
fn folders_that_break_a_rule_are_not_packed() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let refused = |name: &str, prepare: &dyn Fn(&Path)| {
        let dir = temp.path().join(name);
        package(&dir, &["f=x"]);
        prepare(&dir);
        let error = build(&dir, &out).unwrap_err();
        assert!(error.is_permanent(), "{error}");
        let left: Vec<_> = fs::read_dir(temp.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name.to_string_lossy().contains("out"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        error.to_string()
    };
    let text = refused("link", &|dir| {
        symlink("/etc/passwd", dir.join("l")).unwrap()
    });
    assert!(text.contains("is absolute"));
    let text = refused("up", &|dir| symlink("../x", dir.join("l")).unwrap());
    assert!(text.contains("leads out"));
    let text = refused("case", &|dir| fs::write(dir.join("F"), "").unwrap());
    assert!(text.contains("differ only in case"));
    let text = refused("suid", &|dir| {
        fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o4755)).unwrap();
    });
    assert!(text.contains("4755"));
    let text = refused("fifo", &|dir| {
        let made = Command::new("mkfifo").arg(dir.join("p")).status().unwrap();
        assert!(made.success());
    });
    assert!(text.contains("FIFO"));
    let text = refused("none", &|dir| {
        fs::remove_file(dir.join("berth.toml")).unwrap()
    });
    assert!(text.contains("berth.toml is missing"));
    let text = refused("bad", &|dir| {
        fs::write(dir.join("berth.toml"), "[package]\nx = 1").unwrap()
    });
    assert!(text.contains("berth.toml:2:1"));
    let text = refused("names", &|dir| {
        let manifest = MANIFEST.replace("\".\"", "\"model\"");
        fs::write(dir.join("berth.toml"), manifest).unwrap();
    });
    assert!(text.contains("[model] path"));
    let dir = temp.path().join("inside");
    package(&dir, &[]);
    let error = build(&dir, &dir.join("p.tar.zst")).unwrap_err();
    assert!(
        matches!(error, PackageError::Refused(Refused::OutputInside { .. })),
        "{error}"
    );
    assert!(
        !build(&temp.path().join("gone"), &out)
            .unwrap_err()
            .is_permanent()
    );
}

#[test]
fn a_store_is_reused_shared_and_swept() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, out, store) = (
        temp.path().join("d"),
        temp.path().join("p"),
        temp.path().join("s"),
    );
    package(&dir, &["f=x"]);
    let digest = build(&dir, &out).unwrap().digest;
    assert_eq!(lookup(&store, digest).unwrap(), None);
    assert_eq!(sweep(&store).unwrap(), 0);
    let bytes = fs::read(&out).unwrap();
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = || unpack(&bytes[..], digest, &store, Limits::default()).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(results.iter().filter(|package| !package.reused).count(), 1);
    assert_eq!(fs::read_dir(&store).unwrap().count(), 1);
    // What is there already is not read again.
    let again = unpack(std::io::empty(), digest, &store, Limits::default()).unwrap();
    assert!(again.reused);

    // Left over by a crash, half written and read-only.
    let left = store.join(".tmp-1-1");
    fs::create_dir_all(left.join("d")).unwrap();
    fs::write(left.join("d/f"), "x").unwrap();
    fs::set_permissions(left.join("d"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::write(store.join(".tmp-file"), "x").unwrap();
    assert_eq!(sweep(&store).unwrap(), 2);
    assert_eq!(fs::read_dir(&store).unwrap().count(), 1);
}

#[test]
fn a_running_unpack_is_not_swept() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, out, store) = (
        temp.path().join("d"),
        temp.path().join("p"),
        temp.path().join("s"),
    );
    package(&dir, &["f=x"]);
    let digest = build(&dir, &out).unwrap().digest;
    struct Sweeping<'a>(fs::File, &'a Path);
    impl std::io::Read for Sweeping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert_eq!(sweep(self.1).unwrap(), 0);
            self.0.read(buffer)
        }
    }
    let reader = Sweeping(fs::File::open(&out).unwrap(), &store);
    assert!(
        !unpack(reader, digest, &store, Limits::default())
            .unwrap()
            .reused
    );
}

#[test]
fn other_tools_read_our_archives_and_we_read_theirs() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, out, to) = (
        temp.path().join("d"),
        temp.path().join("p"),
        temp.path().join("t"),
    );
    let long = format!("d/{}=long", "x".repeat(200));
    package(&dir, &["d/", "d/f=x", "!s=#!/bin/sh", "l>d/f", &long]);
    let digest = build(&dir, &out).unwrap().digest;
    fs::create_dir(&to).unwrap();
    let run = |archive: &Path, flags: &[&str]| {
        Command::new("tar")
            .args(flags)
            .arg("-f")
            .arg(archive)
            .status()
            .unwrap()
    };
    let at = to.to_str().unwrap();
    if !run(&out, &["--zstd", "-x", "-C", at]).success() {
        eprintln!("skipped: no tar with zstd here");
        return;
    }
    assert_eq!(
        build(&to, &temp.path().join("again")).unwrap().digest,
        digest
    );
    let theirs = temp.path().join("theirs");
    let names = [
        "--zstd",
        "--format=pax",
        "-c",
        "-C",
        at,
        "berth.toml",
        "d",
        "s",
        "l",
    ];
    assert!(run(&theirs, &names).success());
    assert_eq!(verify(&theirs, Some(digest)).unwrap().digest, digest);
}

prop_compose! {
    fn trees()(
        files in prop::collection::btree_map(
            "[a-d](/[a-dé ]{1,3}){0,3}",
            (prop::collection::vec(any::<u8>(), 0..2000), any::<bool>()),
            0..8,
        ),
    ) -> Vec<(String, Vec<u8>, bool)> {
        // A name that is a folder elsewhere gives way.
        let names: Vec<String> = files.keys().cloned().collect();
        files
            .into_iter()
            .filter(|(name, _)| !names.iter().any(|other| other.starts_with(&format!("{name}/"))))
            .map(|(name, (data, executable))| (name, data, executable))
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn trees_round_trip(files in trees()) {
        let temp = tempfile::tempdir().unwrap();
        let (dir, out) = (temp.path().join("d"), temp.path().join("p"));
        package(&dir, &[]);
        for (name, data, executable) in &files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, data).unwrap();
            let mode = if *executable { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let built = build(&dir, &out).unwrap();
        let unpacked = unpack_file(&out, &temp.path().join("s")).unwrap();
        for (name, data, _) in &files {
            prop_assert_eq!(&fs::read(unpacked.path.join(name)).unwrap(), data);
        }
        prop_assert_eq!(build(&unpacked.path, &out).unwrap(), built);
    }
}
