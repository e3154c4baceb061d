//! What a Pod's end is, for Kubernetes: an exit code, and a text where it looks for one.

use std::path::Path;

use berth_model::instance::Reason;

use crate::reconcile::Progress;
use crate::runtime::End;

/// Most bytes of the text; Kubernetes keeps no more than 4096.
const LONGEST: usize = 4000;

/// The exit code as shells have it: the module's own, or 128 and the signal that ended it; 127 if it could not be
/// executed, 1 for everything else that went wrong.
pub(super) fn code(progress: &Progress) -> u8 {
    const TERMINATED: u8 = 128 + 15;
    const KILLED: u8 = 128 + 9;
    if !progress.stopped {
        // Whatever it did, its output and its end are not where they belong.
        return 1;
    }
    match &progress.reason {
        Some(Reason::Completed) => 0,
        Some(Reason::Exited { code, .. }) => exited(*code),
        Some(Reason::Signaled { signal, .. }) => signaled(*signal),
        Some(Reason::OutOfMemory { .. } | Reason::KilledAfterGrace) => KILLED,
        Some(Reason::FailedToStart { .. }) => 127,
        Some(Reason::StopRequested) | None => {
            let module = progress
                .end
                .as_ref()
                .and_then(|end| Some(&end.processes.first()?.end));
            match module {
                Some(End::Exited { code }) => exited(*code),
                Some(End::Signaled { signal, .. }) => signaled(*signal),
                _ => TERMINATED,
            }
        }
        Some(_) => 1,
    }
}

fn exited(code: i32) -> u8 {
    // What the kernel keeps of it.
    u8::try_from(code & 0xff).unwrap_or(1)
}

fn signaled(signal: i32) -> u8 {
    u8::try_from(signal)
        .ok()
        .and_then(|signal| signal.checked_add(128))
        .unwrap_or(1)
}

/// Leaves a text where Kubernetes looks for why a container ended; `kubectl describe pod` shows it. Nothing is
/// made where there is no such file.
pub fn note_failure(file: &Path, text: &str) {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(file);
    // It is a copy for people: the same is on stderr, or with the coordinator.
    let _ =
        opened.and_then(|mut file| std::io::Write::write_all(&mut file, &text.as_bytes()[..end]));
}

/// The reason and the last lines, for [`note_failure`].
pub(super) fn text(progress: &Progress) -> String {
    let mut text = match (&progress.disowned, &progress.reason) {
        (Some(words), _) => words.clone(),
        (None, Some(reason)) => reason.to_string(),
        (None, None) => "stopped before its module was started".to_owned(),
    };
    for line in &progress.last_lines {
        text.push('\n');
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{EndReason, EndState, ProcessEnd};

    fn ended(reason: Reason, end: End) -> Progress {
        let process = ProcessEnd {
            name: "module".into(),
            end,
        };
        Progress {
            stopped: true,
            reason: Some(reason),
            end: Some(EndState {
                reason: EndReason::Stopped,
                stop_requested: true,
                processes: vec![process],
                started_at_ms: 0,
                ended_at_ms: None,
                stderr_tail: None,
            }),
            ..Progress::default()
        }
    }

    #[test]
    fn the_code_is_that_of_the_module() {
        let exit = |code| Reason::Exited {
            process: "module".into(),
            code,
        };
        let one = |reason| Progress {
            stopped: true,
            reason: Some(reason),
            ..Progress::default()
        };
        assert_eq!(code(&one(exit(3))), 3);
        assert_eq!(code(&one(exit(0))), 0);
        assert_eq!(code(&one(Reason::Completed)), 0);
        let signal = Reason::Signaled {
            process: "module".into(),
            signal: 11,
        };
        assert_eq!(code(&one(signal)), 139);
        assert_eq!(code(&one(Reason::KilledAfterGrace)), 137);
        assert_eq!(code(&one(Reason::SupervisorLost)), 1);
        let never = Progress {
            stopped: true,
            ..Progress::default()
        };
        assert_eq!(code(&never), 143);
        assert_eq!(code(&Progress::default()), 1, "it has not stopped");
        let stopped = |end| code(&ended(Reason::StopRequested, end));
        assert_eq!(stopped(End::Exited { code: 0 }), 0);
        assert_eq!(
            stopped(End::Signaled {
                signal: 15,
                core: false
            }),
            143
        );
    }

    #[test]
    fn the_text_is_bounded_and_made_nowhere_new() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        note_failure(&file, "x");
        assert!(!file.exists());
        std::fs::write(&file, "what was there before").unwrap();
        note_failure(&file, &"ä".repeat(4000));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.len() <= LONGEST && text.ends_with('ä'));
        note_failure(&file, "short");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "short");
    }
}
