//! Images that were built here and that nobody uses: kept within a budget, the least recently used go first.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_model::digest::PackageDigest;
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions, RemoveImageOptions};
use sha2::{Digest, Sha256};

use super::recipe::LABEL_DIGEST;
use crate::runtime::docker::daemon::{Daemon, PATIENCE};
use crate::runtime::docker::error::DaemonError;

/// One image of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    tags: Vec<String>,
    bytes: u64,
    used: bool,
    last: SystemTime,
}

/// Where it stands when an image was used last.
fn stamp(folder: &Path, image: &str) -> PathBuf {
    let name = hex::encode(&Sha256::digest(image)[..8]);
    folder.join(format!("{name}.used"))
}

/// An image is used now.
pub(super) fn touch(folder: &Path, image: &str) {
    // Without it an image only seems older than it is.
    let _ = crate::files::make_dir(folder);
    let file = File::options()
        .create(true)
        .append(true)
        .open(stamp(folder, image));
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}

/// Which go, so that what is not used fits into the budget.
fn victims(mut images: Vec<Kept>, budget: u64) -> Vec<Kept> {
    images.retain(|image| !image.used);
    images.sort_by_key(|image| std::cmp::Reverse(image.last));
    let mut sum = 0u64;
    images.retain(|image| {
        sum = sum.saturating_add(image.bytes);
        sum > budget
    });
    images
}

/// Removes what is over the budget. Only images with our label are looked at.
pub(super) async fn collect(
    daemon: &Daemon,
    folder: &Path,
    used: &BTreeSet<PackageDigest>,
    budget: u64,
) -> Result<(), DaemonError> {
    let options = ListImagesOptions {
        filters: Some(HashMap::from([(
            "label".to_owned(),
            vec![LABEL_DIGEST.to_owned()],
        )])),
        ..ListImagesOptions::default()
    };
    let images = daemon.call(PATIENCE, |docker| async move {
        docker.list_images(Some(options)).await
    });
    let all = ListContainersOptions {
        all: true,
        ..ListContainersOptions::default()
    };
    let containers = daemon.call(PATIENCE, |docker| async move {
        docker.list_containers(Some(all)).await
    });
    let (images, containers) = (images.await?, containers.await?);
    let running: BTreeSet<String> = containers
        .into_iter()
        .filter_map(|one| one.image_id)
        .collect();
    let used: BTreeSet<String> = used.iter().map(ToString::to_string).collect();
    let kept = images.into_iter().map(|image| {
        let digest = image.labels.get(LABEL_DIGEST);
        let last = image.repo_tags.iter().filter_map(|tag| {
            let stamp = stamp(folder, tag).metadata().ok()?;
            stamp.modified().ok()
        });
        Kept {
            used: running.contains(&image.id) || digest.is_some_and(|digest| used.contains(digest)),
            bytes: u64::try_from(image.size).unwrap_or(0),
            last: last.max().unwrap_or(SystemTime::UNIX_EPOCH),
            tags: image.repo_tags,
        }
    });
    for image in victims(kept.collect(), budget) {
        for tag in image.tags {
            tracing::info!(image = tag, "removing an image that is not used");
            let name = tag.clone();
            let removed = daemon.call(PATIENCE, |docker| async move {
                let options = None::<RemoveImageOptions>;
                docker.remove_image(&name, options, None).await
            });
            if let Err(error) = removed.await {
                // Somebody has begun to use it; or it is gone.
                tracing::debug!(image = tag, error = crate::chain(&error), "cannot remove");
            }
            let _ = std::fs::remove_file(stamp(folder, &tag));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn image(name: &str, bytes: u64, used: bool, last: u64) -> Kept {
        Kept {
            tags: vec![name.into()],
            bytes,
            used,
            last: SystemTime::UNIX_EPOCH + Duration::from_secs(last),
        }
    }

    #[test]
    fn the_least_recently_used_go_and_never_one_in_use() {
        let all = vec![
            image("old", 10, false, 1),
            image("used", 1000, true, 0),
            image("new", 10, false, 3),
            image("middle", 10, false, 2),
        ];
        let names = |budget| -> Vec<String> {
            victims(all.clone(), budget)
                .into_iter()
                .flat_map(|image| image.tags)
                .collect()
        };
        assert_eq!(names(30), [""; 0]);
        assert_eq!(names(29), ["old"]);
        assert_eq!(names(10), ["middle", "old"]);
        assert_eq!(names(0), ["new", "middle", "old"]);
    }
}
