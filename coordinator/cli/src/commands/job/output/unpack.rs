//! A folder's `.tar.zst`. A task made what is in it, so nothing of it is trusted: only files, folders, and
//! links that stay below the part's own folder.

use std::io::Read;
use std::path::{Component, Path};

use anyhow::{Context as _, Result, bail};
use tar::{Archive, EntryType};

/// Unpacks into a folder beside `part`, and gives it that name when all of it is there.
pub(super) fn folder(archive: impl Read, dir: &Path, part: &Path) -> Result<()> {
    let doing = || format!("cannot unpack {}", part.display());
    let temp = tempfile::tempdir_in(dir).with_context(doing)?;
    let decoder = zstd::Decoder::new(archive).with_context(doing)?;
    let mut archive = Archive::new(decoder);
    for entry in archive.entries().with_context(doing)? {
        let mut entry = entry.with_context(doing)?;
        let path = entry.path().with_context(doing)?.into_owned();
        let plain = |c: Component| matches!(c, Component::Normal(_) | Component::CurDir);
        let kind = entry.header().entry_type();
        let wanted = match kind {
            EntryType::Regular | EntryType::Directory => true,
            EntryType::Symlink => {
                let target = entry.link_name().with_context(doing)?;
                target.is_some_and(|target| stays_within(&path, &target))
            }
            _ => false,
        };
        if !wanted || !path.components().all(plain) {
            bail!(
                "the output for {} holds {} ({kind:?}), which is not unpacked: only files, folders and links that \
                 lead to such are",
                part.display(),
                path.display()
            );
        }
        entry.set_preserve_permissions(false);
        entry.unpack_in(temp.path()).with_context(doing)?;
    }
    // A temporary folder is its owner's only.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755))
        .and_then(|()| std::fs::rename(temp.path(), part))
        .with_context(doing)?;
    // Renamed: there is nothing left to remove.
    let _ = temp.keep();
    Ok(())
}

/// Whether a link leads to something below the folder it is in. Upwards only at the beginning, where it is
/// the link's own folders that are left: behind another link's name `..` could be anywhere.
fn stays_within(link: &Path, target: &Path) -> bool {
    let depth = link.components().count().saturating_sub(1);
    let up = target
        .components()
        .take_while(|c| *c == Component::ParentDir)
        .count();
    let mut rest = target.components().skip(up);
    up <= depth && rest.all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(name: &str, kind: EntryType) -> Vec<u8> {
        let encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        let mut builder = tar::Builder::new(encoder);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        let data: &[u8] = if kind == EntryType::Regular {
            b"hello"
        } else {
            b""
        };
        header.set_size(data.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if kind == EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, data).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn files_come_out_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("part-00000");
        let good = archive("sub/a.txt", EntryType::Regular);
        folder(good.as_slice(), dir.path(), &part).unwrap();
        assert_eq!(std::fs::read(part.join("sub/a.txt")).unwrap(), b"hello");
        for (name, kind) in [
            ("../evil", EntryType::Regular),
            ("/evil", EntryType::Regular),
            ("link", EntryType::Symlink),
            ("fifo", EntryType::Fifo),
        ] {
            let bad = archive(name, kind);
            let part = dir.path().join("part-00001");
            assert!(folder(bad.as_slice(), dir.path(), &part).is_err(), "{name}");
            assert!(!part.exists());
        }
        for (link, target, good) in [
            ("a/l", "../b", true),
            ("l", "b/c", true),
            ("l", "../b", false),
            ("a/l", "/b", false),
            ("a/b/l", "d/../../../x", false),
        ] {
            assert_eq!(
                stays_within(link.as_ref(), target.as_ref()),
                good,
                "{target}"
            );
        }
        let there: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(there.len(), 1, "{there:?}");
    }
}
