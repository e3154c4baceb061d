//! An image of one layer as `docker save` would write it: the same bytes for the same content.

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Who the image's processes are if nothing else is said: nobody in particular, and not root.
const USER: &str = "65532:65532";

/// Names are looked up in files and DNS, which static programs can do by themselves, and nowhere else.
const NSSWITCH: &str = "hosts: files dns\n";

/// A program in the image's root folder.
pub(super) struct Content {
    /// Its file name.
    pub(super) name: &'static str,
    /// The program.
    pub(super) bytes: Vec<u8>,
}

/// An image to be written.
pub(super) struct Image {
    /// As in `name:tag`.
    pub(super) tag: String,
    /// As images call it, as in `amd64`.
    pub(super) architecture: &'static str,
    /// The first one is the entry point.
    pub(super) programs: Vec<Content>,
}

impl Image {
    /// The archive's bytes.
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let layer = self.layer()?;
        let layer_digest = digest(&layer);
        let config = serde_json::to_vec(&self.config(&layer_digest))?;
        let config_name = format!("{}.json", digest(&config));
        let layer_name = format!("{layer_digest}/layer.tar");
        let manifest = json!([{
            "Config": config_name,
            "RepoTags": [self.tag],
            "Layers": [layer_name],
        }]);
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, &config_name, 0o644, &config)?;
        folder(&mut tar, &format!("{layer_digest}/"))?;
        add(&mut tar, &layer_name, 0o644, &layer)?;
        add(
            &mut tar,
            "manifest.json",
            0o644,
            &serde_json::to_vec(&manifest)?,
        )?;
        Ok(tar.into_inner()?)
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for program in &self.programs {
            add(&mut tar, program.name, 0o755, &program.bytes)?;
        }
        folder(&mut tar, "etc/")?;
        add(&mut tar, "etc/nsswitch.conf", 0o644, NSSWITCH.as_bytes())?;
        Ok(tar.into_inner()?)
    }

    fn config(&self, layer_digest: &str) -> Value {
        let entrypoint: Vec<String> = self
            .programs
            .first()
            .map(|program| format!("/{}", program.name))
            .into_iter()
            .collect();
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "User": USER,
                "WorkingDir": "/",
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": entrypoint,
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask image" }],
        })
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A header that says nothing of the machine or the time.
fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, bytes.len());
    Ok(tar.append_data(&mut header, path, bytes)?)
}

fn folder(tar: &mut tar::Builder<Vec<u8>>, path: &str) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, 0o755, 0);
    Ok(tar.append_data(&mut header, path, std::io::empty())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn image(agent: &[u8]) -> Image {
        let program = |name, bytes: &[u8]| Content {
            name,
            bytes: bytes.to_vec(),
        };
        Image {
            tag: "berth-pod:9".to_owned(),
            architecture: "amd64",
            programs: vec![
                program("berth-agent", agent),
                program("berth-shim", b"shim"),
            ],
        }
    }

    /// Path → (mode, uid, mtime, bytes).
    fn entries(tar: &[u8]) -> BTreeMap<String, (u32, u64, u64, Vec<u8>)> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let header = entry.header();
            let about = (
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.mtime().unwrap(),
            );
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            (path, (about.0, about.1, about.2, bytes))
        });
        entries.collect()
    }

    #[test]
    fn the_manifest_leads_to_a_config_and_a_layer_with_the_programs() {
        let archive = entries(&image(b"agent").archive().unwrap());
        let manifest: Value = serde_json::from_slice(&archive["manifest.json"].3).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["berth-pod:9"]));
        let config_name = manifest[0]["Config"].as_str().unwrap();
        let config_bytes = &archive[config_name].3;
        assert_eq!(config_name, format!("{}.json", digest(config_bytes)));
        let layer = &archive[manifest[0]["Layers"][0].as_str().unwrap()].3;
        let config: Value = serde_json::from_slice(config_bytes).unwrap();
        assert_eq!(
            config["rootfs"]["diff_ids"],
            json!([format!("sha256:{}", digest(layer))])
        );
        assert_eq!(config["config"]["Entrypoint"], json!(["/berth-agent"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        let files = entries(layer);
        assert_eq!(
            files["berth-agent"],
            (0o755, 0, 0, b"agent".to_vec()),
            "{:?}",
            files.keys()
        );
        assert_eq!(files["berth-shim"].3, b"shim");
        assert!(files.contains_key("etc/nsswitch.conf"));
    }

    #[test]
    fn the_same_content_makes_the_same_bytes_and_other_content_others() {
        let one = image(b"agent").archive().unwrap();
        assert_eq!(one, image(b"agent").archive().unwrap());
        assert_ne!(one, image(b"Agent").archive().unwrap());
    }
}
