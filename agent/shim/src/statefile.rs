//! Writing `state.json` so that it is always whole, also on a disk that has become full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use berth_shim::state::{STATE_FILE, State};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Bytes that the spare file always keeps allocated: a state fits in, so that the final one can be
/// written when the disk is full.
const SPARE: usize = 4096;

/// The state file and its spare, which change places at each write.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    spare: PathBuf,
}

impl StateFile {
    /// The state file of a start folder. Does no I/O.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            path: dir.join(STATE_FILE),
            spare: dir.join("state.next"),
        }
    }

    /// Whether a shim has been here before.
    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Replaces the state.
    pub(crate) fn write(&self, state: &State) -> io::Result<()> {
        let mut text = serde_json::to_vec(state)?;
        // Padded with blanks, which JSON ignores, a file never gives its block back.
        if text.len() < SPARE {
            text.resize(SPARE - 1, b' ');
            text.push(b'\n');
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.spare)?;
        file.write_all(&text)?;
        file.set_len(text.len() as u64)?;
        drop(file);
        match renameat_with(CWD, &self.spare, CWD, &self.path, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // The first write, or a file system that cannot exchange.
            Err(_) => {
                fs::rename(&self.spare, &self.path)?;
                // The spare is for later; without it, a full disk delays the final state.
                let _ =
                    File::create(&self.spare).and_then(|mut file| file.write_all(&[b' '; SPARE]));
                Ok(())
            }
        }
    }
}
