//! Noticing that the agent has replaced a file.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Looked at this often, whatever the system tells: file systems differ.
const LOOK: Duration = Duration::from_secs(5);

/// Tells when something in a folder may have changed.
pub(crate) struct Watch {
    folder: PathBuf,
    told: Option<AsyncFd<OwnedFd>>,
    warned: bool,
}

impl Watch {
    /// Of a folder, which may not be there yet.
    pub(crate) fn of(folder: &Path) -> Self {
        let mut watch = Self {
            folder: folder.to_owned(),
            told: None,
            warned: false,
        };
        watch.begin();
        watch
    }

    fn begin(&mut self) {
        match watch(&self.folder) {
            Ok(told) => self.told = Some(told),
            Err(error) => self.warn(&error),
        }
    }

    fn warn(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(%error, folder = %self.folder.display(),
                "is not told of changes; looking every {LOOK:?}");
        }
    }

    /// Resolves when something may have changed.
    pub(crate) async fn changed(&mut self) {
        let Some(told) = &mut self.told else {
            tokio::time::sleep(LOOK).await;
            return self.begin();
        };
        let event = told.async_io(Interest::READABLE, drain);
        if let Ok(Err(error)) = tokio::time::timeout(LOOK, event).await {
            self.told = None;
            self.warn(&error);
        }
    }
}

fn watch(folder: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
    let fd = inotify::init(flags)?;
    let what = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&fd, folder, what)?;
    #[expect(
        deprecated,
        reason = "sound for an OwnedFd, and its successor needs unsafe code"
    )]
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Reads all that is told; what it was does not matter.
fn drain(fd: &OwnedFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut told = false;
    loop {
        match inotify::Reader::new(fd, &mut buffer).next() {
            Ok(_) => told = true,
            Err(rustix::io::Errno::WOULDBLOCK) if told => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
