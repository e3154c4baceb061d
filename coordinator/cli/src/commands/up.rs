//! A whole Berth on this machine, from the programs beside this one.

pub(super) mod local;
mod parts;
pub(super) mod process;
pub(super) mod record;
mod watch;

use anyhow::Result;

use crate::args::Up;
use crate::context::{Contexts, Stored};
use crate::{output, progress::note};
use local::Local;

pub(super) async fn run(up: Up) -> Result<()> {
    let local = Local::open(up.data.clone())?;
    let lock = local.lock()?;
    let started = parts::start(&local, &up).await?;
    drop(lock);
    output::print(&format!(
        "coordinator  {}\ngateway      {}\nnodes        {}\ndata         {}\n\nNext: berth package init my-model && berth model push my-model && berth deploy my-model --wait\n",
        started.api,
        started.gateway,
        up.nodes,
        local.root.display(),
    ))?;
    if up.detach {
        return Ok(());
    }
    note("Ctrl-C stops everything.");
    watch::until_interrupted(&local).await?;
    note("stopping");
    super::down::stop(&local).await
}

/// Makes the local coordinator the one that the CLI talks to.
fn write_context(local: &Local, api: &str) -> Result<()> {
    let path = crate::context::file()?;
    let mut contexts = Contexts::read(&path)?;
    let stored = Stored {
        endpoint: api.to_owned(),
        ca: local.coordinator().join("ca.crt"),
        token: None,
        token_file: Some(local.coordinator().join("admin.token")),
    };
    contexts.contexts.insert("local".to_owned(), stored);
    "local".clone_into(&mut contexts.current);
    contexts.write(&path)
}
