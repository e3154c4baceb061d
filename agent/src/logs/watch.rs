//! Being told of writes to log folders: inotify, so that an idle agent sleeps.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches folders, each under a key.
#[derive(Debug)]
pub(super) struct Watcher<K> {
    fd: AsyncFd<OwnedFd>,
    keys: BTreeMap<i32, K>,
}

impl<K: Clone + Eq> Watcher<K> {
    pub(super) fn new() -> io::Result<Self> {
        let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[allow(
            deprecated,
            reason = "sound for an OwnedFd, and its successor needs unsafe code"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self {
            fd,
            keys: BTreeMap::new(),
        })
    }

    /// Watches a folder. What was written before is not told.
    pub(super) fn add(&mut self, folder: &Path, key: K) -> io::Result<()> {
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        let watch = add_watch(self.fd.get_ref(), folder, flags)?;
        self.keys.insert(watch, key);
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &K) {
        let watches: Vec<i32> = self
            .keys
            .iter()
            .filter(|(_, k)| *k == key)
            .map(|(watch, _)| *watch)
            .collect();
        for watch in watches {
            self.keys.remove(&watch);
            // Gone already if the folder is.
            let _ = remove_watch(self.fd.get_ref(), watch);
        }
    }

    /// Waits for writes and tells the keys concerned; none with `overflow`: any of them. Cancel-safe.
    pub(super) async fn written(&mut self) -> io::Result<Written<K>> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(ready.get_inner(), &mut buffer);
            let mut written = Written {
                keys: Vec::new(),
                overflow: false,
            };
            loop {
                match reader.next() {
                    Ok(event) if event.wd() < 0 => written.overflow = true,
                    Ok(event) => {
                        if let Some(key) = self.keys.get(&event.wd())
                            && !written.keys.contains(key)
                        {
                            written.keys.push(key.clone());
                        }
                    }
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if written.overflow || !written.keys.is_empty() {
                return Ok(written);
            }
        }
    }
}

/// What was written to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written<K> {
    pub(super) keys: Vec<K>,
    /// Some events were lost: look everywhere.
    pub(super) overflow: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_are_told_under_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir(&a).unwrap();
        std::fs::create_dir(&b).unwrap();
        let mut watcher = Watcher::new().unwrap();
        watcher.add(&a, 'a').unwrap();
        watcher.add(&b, 'b').unwrap();
        std::fs::write(b.join("x"), "1").unwrap();
        assert_eq!(watcher.written().await.unwrap().keys, ['b']);
        watcher.remove(&'b');
        std::fs::write(b.join("x"), "2").unwrap();
        std::fs::write(a.join("y"), "2").unwrap();
        assert_eq!(watcher.written().await.unwrap().keys, ['a']);
    }
}
