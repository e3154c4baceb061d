//! Processes as `/proc` shows them: identity that survives pid reuse, trees, leftovers of a shim.
//!
//! A pid alone says nothing: it may be another process's by now. Everything here works on
//! [`ProcessIdentity`], and a signal is only sent to the very process that was meant.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;

use crate::spec::{MARKER, MARKER_DIR, marker};
use crate::state::ProcessIdentity;

/// One process at one moment, from `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// Process id.
    pub pid: u32,
    /// Id of its parent.
    pub parent: u32,
    /// State letter of its main thread: `R`, `S`, `D`, `T`, `Z`, …
    pub state: u8,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// User and system time in clock ticks, its own and that of children it has waited for.
    pub cpu_ticks: u64,
    /// Resident memory in pages.
    pub rss_pages: u64,
}

impl ProcessStat {
    /// Who it is.
    pub fn identity(&self) -> ProcessIdentity {
        ProcessIdentity {
            pid: self.pid,
            start_ticks: self.start_ticks,
        }
    }

    /// Whether its main thread is gone, so that only its exit status is left (or, rarely, other
    /// threads).
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The id of this boot, a UUID that the kernel makes. It is the same for every process on the machine.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Reads `/proc/PID/stat`. None if there is no such process.
pub fn stat(pid: u32) -> io::Result<Option<ProcessStat>> {
    let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| {
        let mut buffer = [0; 1024];
        let length = file.read(&mut buffer)?;
        Ok((buffer, length))
    });
    match read {
        Ok((buffer, length)) => parse_stat(&buffer[..length])
            .map(Some)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable /proc/PID/stat")),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A process that ends while its files are read gives either error.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn parse_stat(line: &[u8]) -> Option<ProcessStat> {
    // The second field is the program's name in parentheses, which may hold blanks and parentheses.
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(&line[..open])
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    // Numbered as in proc(5), where the state is field 3.
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let mut fields = fields.skip(14 - 5);
    let mut cpu_ticks: u64 = 0;
    for _ in 14..=17 {
        cpu_ticks = cpu_ticks.saturating_add_signed(fields.next()?.parse().ok()?);
    }
    let mut fields = fields.skip(22 - 18);
    let start_ticks = fields.next()?.parse().ok()?;
    let rss_pages = fields.nth(1)?.parse::<i64>().ok()?.max(0).unsigned_abs();
    Some(ProcessStat {
        pid,
        parent,
        state,
        start_ticks,
        cpu_ticks,
        rss_pages,
    })
}

/// Who has a pid now, if anybody has.
pub fn identify(pid: u32) -> io::Result<Option<ProcessIdentity>> {
    Ok(stat(pid)?.map(|stat| stat.identity()))
}

/// Whether this very process still runs. `boot` is the boot in which its identity was taken. Zombies are
/// dead: a slow init may leave them for long.
pub fn is_alive(identity: ProcessIdentity, boot: &str) -> io::Result<bool> {
    if boot_id()? != boot {
        return Ok(false);
    }
    let stat = stat(identity.pid)?;
    Ok(stat.is_some_and(|stat| stat.start_ticks == identity.start_ticks && !stat.is_zombie()))
}

/// Every process there is, by one scan of `/proc`. Not a snapshot: processes come and go meanwhile.
pub fn all() -> io::Result<Vec<ProcessStat>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One unreadable process must not hide the others.
        if let Ok(Some(stat)) = stat(pid) {
            found.push(stat);
        }
    }
    Ok(found)
}

/// The descendants of a process, without itself. As a shim is a subreaper, they are all that its
/// processes ever started, however often they forked.
pub fn descendants(root: u32) -> io::Result<Vec<ProcessStat>> {
    Ok(below(root, all()?))
}

/// The descendants of a process by way of the kernel's lists of children, where it has them: fast, however
/// many other processes there are. What forks or ends meanwhile may be missed, so this is for looking,
/// and [`descendants`] for killing.
pub fn descendants_quick(root: u32) -> io::Result<Vec<ProcessStat>> {
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        let Some(children) = children(pid)? else {
            return descendants(root);
        };
        for child in children {
            if let Ok(Some(stat)) = stat(child) {
                found.push(stat);
                open.push(child);
            }
        }
    }
    Ok(found)
}

/// The children of all threads of a process; none if the kernel does not list them.
fn children(pid: u32) -> io::Result<Option<Vec<u32>>> {
    let mut found = Vec::new();
    let threads = match fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(error) if is_gone(&error) => return Ok(Some(found)),
        Err(error) => return Err(error),
    };
    for thread in threads.filter_map(Result::ok) {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(
                list.split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            ),
            // Either the thread is gone, or the file never was.
            Err(error) if is_gone(&error) && thread.path().exists() => return Ok(None),
            Err(_) => {}
        }
    }
    Ok(Some(found))
}

fn below(root: u32, mut rest: Vec<ProcessStat>) -> Vec<ProcessStat> {
    let mut tree = HashSet::from([root]);
    let mut found: Vec<ProcessStat> = Vec::new();
    loop {
        let before = found.len();
        rest.retain(|stat| {
            let inside = stat.pid != root && tree.contains(&stat.parent);
            if inside {
                tree.insert(stat.pid);
                found.push(*stat);
            }
            !inside
        });
        if found.len() == before {
            return found;
        }
    }
}

/// Sends a signal to this very process, never to one that has taken its pid. False if it is gone. The
/// boot must be the one in which the identity was taken.
pub fn send_signal(identity: ProcessIdentity, signal: Signal) -> io::Result<bool> {
    let Some(pid) = i32::try_from(identity.pid).ok().and_then(Pid::from_raw) else {
        return Ok(false);
    };
    // The descriptor pins the process; then its start time says whether it is the right one.
    let pinned = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => Some(descriptor),
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        // Before Linux 5.3: checking first is the best there is.
        Err(rustix::io::Errno::NOSYS) => None,
        Err(error) => return Err(error.into()),
    };
    if identify(identity.pid)? != Some(identity) {
        return Ok(false);
    }
    let sent = match pinned {
        Some(descriptor) => pidfd_send_signal(descriptor, signal),
        None => kill_process(pid, signal),
    };
    match sent {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The processes that carry the marker of a start in their environment: what is left of it when its
/// shim was killed. Zombies are passed over. A process that was given another environment by its parent
/// is not found. `dir` is the start folder's canonical path.
pub fn find_by_marker(instance: &str, start: u32, dir: &Path) -> io::Result<Vec<ProcessIdentity>> {
    let marks = [
        format!("{MARKER}={}", marker(instance, start)).into_bytes(),
        [
            MARKER_DIR.as_bytes(),
            b"=",
            dir.as_os_str().as_encoded_bytes(),
        ]
        .concat(),
    ];
    let mut found = Vec::new();
    for stat in all()? {
        // Other users' processes cannot be read and are not ours; one that ended is of no interest.
        let Ok(environ) = fs::read(format!("/proc/{}/environ", stat.pid)) else {
            continue;
        };
        let has = |mark: &Vec<u8>| environ.split(|byte| *byte == 0).any(|entry| entry == mark);
        if !stat.is_zombie() && marks.iter().all(has) {
            found.push(stat.identity());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn process(pid: u32, parent: u32) -> ProcessStat {
        ProcessStat {
            pid,
            parent,
            state: b'S',
            start_ticks: 1,
            cpu_ticks: 0,
            rss_pages: 0,
        }
    }

    #[test]
    fn a_hostile_program_name_does_not_shift_the_fields() {
        let line = b"77 (a) S 1 (b c) Z 5 77 77 0 -1 4194304 9 8 7 6 10 20 30 40 20 0 1 0 4242 \
                     1000 25 18446744073709551615\n";
        let stat = parse_stat(line).unwrap();
        let expected = ProcessStat {
            pid: 77,
            parent: 5,
            state: b'Z',
            start_ticks: 4242,
            cpu_ticks: 100,
            rss_pages: 25,
        };
        assert_eq!(stat, expected);
        assert_eq!(parse_stat(b"77 (x"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_tree_is_found_whatever_the_order() {
        let list = vec![
            process(9, 8),
            process(7, 1),
            process(8, 5),
            process(5, 1),
            process(6, 5),
        ];
        let mut pids: Vec<u32> = below(5, list).iter().map(|stat| stat.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [6, 8, 9]);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = identify(std::process::id()).unwrap().unwrap();
        let boot = boot_id().unwrap();
        assert!(is_alive(me, &boot).unwrap());
        let impostor = ProcessIdentity {
            start_ticks: me.start_ticks + 1,
            ..me
        };
        assert!(!is_alive(impostor, &boot).unwrap());
        assert!(!is_alive(me, "another boot").unwrap());
        assert!(!send_signal(impostor, Signal::KILL).unwrap());
    }

    #[test]
    fn a_zombie_is_dead_and_a_marked_process_is_found() {
        let dir = Path::new("/some/start/folder");
        let mut child = Command::new("sleep")
            .arg("600")
            .env(MARKER, "marker-test.1.0.1/3")
            .env(MARKER_DIR, dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let identity = identify(child.id()).unwrap().unwrap();
        // Between fork and exec it still has this process's environment.
        while find_by_marker("marker-test.1.0.1", 3, dir).unwrap() != [identity] {
            std::thread::yield_now();
        }
        assert_eq!(find_by_marker("marker-test.1.0.1", 2, dir).unwrap(), []);
        assert_eq!(
            find_by_marker("marker-test.1.0.1", 3, Path::new("/other")).unwrap(),
            []
        );
        assert!(
            descendants(std::process::id())
                .unwrap()
                .iter()
                .any(|s| s.identity() == identity)
        );
        assert!(send_signal(identity, Signal::KILL).unwrap());
        let boot = boot_id().unwrap();
        while is_alive(identity, &boot).unwrap() {
            std::thread::yield_now();
        }
        assert!(stat(identity.pid).unwrap().unwrap().is_zombie());
        child.wait().unwrap();
        assert!(!send_signal(identity, Signal::KILL).unwrap());
    }
}
