//! A tiny image for test Pods: busybox, and in the place of Berth's agent a script that does what the test says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

pub(crate) const TAG: &str = "localhost/berth-kubernetes-test:2";

/// `BERTH_ENDPOINT` is the only thing that a configuration hands to Pods as it is, so it carries the commands,
/// `prepare` and `run` told apart by a `;;`.
const AGENT: &str = r#"#!/bin/sh
case "$2" in
prepare) cp /berth-agent /berth/bin/berth-agent; eval "${BERTH_ENDPOINT%%;;*}" ;;
run) eval "${BERTH_ENDPOINT##*;;}" ;;
esac
"#;

fn archive() -> Result<Vec<u8>> {
    let busybox = std::fs::read("/bin/busybox").context("/bin/busybox: install busybox-static")?;
    let mut layer = tar::Builder::new(Vec::new());
    put(&mut layer, "bin/busybox", 0o755, &busybox)?;
    put(&mut layer, "berth-agent", 0o755, AGENT.as_bytes())?;
    for name in [
        "sh", "sleep", "cat", "cp", "echo", "id", "ls", "seq", "env", "tail", "dd", "touch", "kill",
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    let layer = layer.into_inner()?;
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        hex::encode(Sha256::digest(&layer))
    );
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":["{TAG}"],"Layers":["layer.tar"]}}]"#);
    let mut all = tar::Builder::new(Vec::new());
    put(&mut all, "config.json", 0o644, config.as_bytes())?;
    put(&mut all, "layer.tar", 0o644, &layer)?;
    put(&mut all, "manifest.json", 0o644, manifest.as_bytes())?;
    Ok(all.into_inner()?)
}

fn put(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

fn load(socket: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file: PathBuf = dir.path().join("image.tar");
    std::fs::write(&file, archive()?)?;
    let out = Command::new("ctr")
        .arg("-a")
        .arg(socket)
        .args(["-n", "k8s.io", "images", "import"])
        .arg(&file)
        .output()?;
    ensure!(
        out.status.success(),
        "ctr images import: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

/// The image's name, once the cluster beside `kubeconfig` has it.
pub(crate) fn ready(kubeconfig: &Path) -> Result<String, String> {
    static DONE: OnceLock<Result<String, String>> = OnceLock::new();
    let socket = kubeconfig.with_file_name("containerd").join("sock");
    DONE.get_or_init(|| match std::env::var("BERTH_TEST_POD_IMAGE") {
        Ok(image) => Ok(image),
        Err(_) => load(&socket)
            .map(|()| TAG.to_owned())
            .map_err(|e| format!("{e:#}")),
    })
    .clone()
}
