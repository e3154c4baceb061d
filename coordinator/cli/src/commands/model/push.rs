use std::path::Path;

use anyhow::{Context as _, Result};
use berth_model::api::{ModelVersionView, RegisterModel};

use crate::client::Client;
use crate::progress::Progress;
use crate::{output, upload};

pub(super) async fn run(client: &Client, package: &Path) -> Result<()> {
    let temp = tempfile::tempdir().context("no temporary folder")?;
    let (archive, summary) = if package.is_dir() {
        let archive = temp.path().join("package.tar.zst");
        let summary = super::super::package::pack(package, &archive)?;
        (archive, summary)
    } else {
        (package.to_path_buf(), berth_package::verify(package, None)?)
    };
    let size = summary.archive_size;
    let mut progress = Progress::bytes("uploading", size);
    upload::blob(client, &archive, summary.archive, size, |done| {
        progress.at(done, size);
    })
    .await?;
    progress.done();
    let model: ModelVersionView = client
        .post(
            "/v1/models",
            &RegisterModel {
                blob: summary.archive,
            },
        )
        .await?;
    output::line(&format!(
        "{}@{}  #{}  {}",
        model.name, model.version, model.serial, model.digest
    ))
}
