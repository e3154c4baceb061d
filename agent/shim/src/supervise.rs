//! The supervisor: starts the processes, keeps their output, and ends when all are gone.

use std::error::Error;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_logfile::Stream;
use berth_shim::identity;
use berth_shim::spec::Spec;
use berth_shim::state::{LOCK_FILE, LOGS_DIR, Phase, ProcessState, STATE_VERSION, State, Status};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{WaitOptions, WaitStatus};

use crate::confine::Confined;
use crate::ending::Ending;
use crate::memory::Memory;
use crate::output::{Pipe, Pumped};
use crate::recorder::Recorder;
use crate::spawn;
use crate::statefile::StateFile;

/// Longest grace for the rest of the tree when a process has ended by itself: nobody waits for the rest's
/// sake, but for the restart.
const REST_GRACE: Duration = Duration::from_secs(2);

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// Reads of one pipe before the others have their turn.
const TURN: usize = 4;

/// How long the final state and the last gap are tried on a full disk.
const LAST_TRIES: u32 = 40;

type Failure = Box<dyn Error>;

struct Supervisor {
    dir: PathBuf,
    spec: Spec,
    state: State,
    file: StateFile,
    signals: SignalFd,
    pipes: Vec<Pipe>,
    recorder: Recorder,
    memory: Memory,
    confined: Confined,
    ending: Option<Ending>,
    /// No child is left. As orphans become the shim's children, nothing of the tree is.
    empty: bool,
    buffer: Vec<u8>,
}

/// Runs the start in `dir` to its end.
pub(crate) fn run(dir: &Path) -> Result<(), Failure> {
    spawn::close_inherited();
    // The marker names it, and whoever looks for leftovers may have come by another way.
    let dir = dir.canonicalize()?;
    // Away from the agent's session, so that its terminal's signals do not reach here. It fails where
    // the shim leads one already (as the first process of a container).
    let _ = nix::unistd::setsid();
    // Held, though never used again, until this process ends.
    let _lock = lock(&dir)?;
    let mut supervisor = Supervisor::new(dir)?;
    supervisor.start();
    let failed = supervisor.ending.is_some();
    supervisor.save(if failed {
        Phase::Stopping
    } else {
        Phase::Running
    })?;
    while !supervisor.empty {
        supervisor.step()?;
    }
    supervisor.finish()
}

fn lock(dir: &Path) -> Result<File, Failure> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(dir.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err("another shim or an agent holds this folder".into()),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Supervisor {
    fn new(dir: PathBuf) -> Result<Self, Failure> {
        let file = StateFile::new(&dir);
        if file.exists() {
            return Err("this start was run already; a restart is another start".into());
        }
        let spec = Spec::load(&dir)?;
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGUSR1,
            Signal::SIGHUP,
        ] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        // Before its memory is looked at.
        let confined = Confined::enter(spec.sandbox.as_ref())?;
        let shim = identity::identify(std::process::id())?.ok_or("no /proc/self/stat")?;
        let process = |name: &String| ProcessState {
            name: name.clone(),
            pid: None,
            start_ticks: None,
            status: Status::NotStarted,
            oom_killed: false,
        };
        let state = State {
            version: STATE_VERSION,
            instance: spec.instance.clone(),
            start: spec.start,
            boot_id: identity::boot_id()?,
            shim,
            phase: Phase::Starting,
            processes: spec
                .processes
                .iter()
                .map(|spec| process(&spec.name))
                .collect(),
            started_at_ms: unix_millis(),
            ended_at_ms: None,
            stop_requested: false,
            killed_after_grace: false,
            ended_by: None,
            memory: None,
            stderr_tail: None,
        };
        // Before anything is started: whoever finds a process can find out whose it is.
        file.write(&state)?;
        let recorder = Recorder::new(&dir.join(LOGS_DIR), &spec);
        Ok(Self {
            dir,
            spec,
            state,
            file,
            signals,
            pipes: Vec::new(),
            recorder,
            memory: Memory::new(),
            confined,
            ending: None,
            empty: false,
            buffer: vec![0; CHUNK],
        })
    }

    fn save(&mut self, phase: Phase) -> io::Result<()> {
        self.state.phase = phase;
        self.file.write(&self.state)
    }

    /// Starts every process, or none after the first that fails.
    fn start(&mut self) {
        for index in 0..self.spec.processes.len() {
            if let Err(error) = self.start_one(index) {
                let process = &mut self.state.processes[index];
                process.status = Status::FailedToStart {
                    error: error.to_string(),
                };
                self.state.ended_by = Some(process.name.clone());
                self.end(REST_GRACE);
                // With no child there is no SIGCHLD to find that out.
                self.reap();
                return;
            }
        }
    }

    /// Starts a process; an error is worded for who wrote the command.
    fn start_one(&mut self, index: usize) -> Result<(), String> {
        let process = &self.spec.processes[index];
        // Exec reports a missing folder and a missing program alike.
        if let Err(error) = std::fs::metadata(&process.cwd) {
            return Err(format!(
                "working directory {}: {error}",
                process.cwd.display()
            ));
        }
        let program = process.argv.first().map_or("", String::as_str);
        let wording = |error: io::Error| format!("{program}: {error}");
        let (out, stdout) = pipe().map_err(wording)?;
        let (err, stderr) = pipe().map_err(wording)?;
        let confined = self.confined.child().map_err(wording)?;
        let marker = self.spec.marker();
        let pid = spawn::spawn(process, &marker, &self.dir, (stdout, stderr), confined)
            .map_err(wording)?;
        // A spec has few processes: it was checked.
        let number = u8::try_from(index).unwrap_or(u8::MAX);
        self.pipes.push(Pipe::new(out, number, Stream::Stdout));
        self.pipes.push(Pipe::new(err, number, Stream::Stderr));
        let state = &mut self.state.processes[index];
        state.pid = Some(pid);
        // It is there, if only as a zombie, until it is reaped below.
        let identity = identity::identify(pid).ok().flatten();
        state.start_ticks = identity.map(|identity| identity.start_ticks);
        state.status = Status::Running;
        Ok(())
    }

    /// Waits for something to happen, and deals with it.
    fn step(&mut self) -> Result<(), Failure> {
        self.wait()?;
        self.recorder.tick();
        let (stop, kill) = self.read_signals()?;
        // Before reaping: a service manager may signal the shim and its processes at the same time.
        if stop || kill {
            self.stop(kill);
        }
        self.reap();
        self.pump();
        if let Some(ending) = &mut self.ending {
            ending.tick(Instant::now());
        }
        self.recorder.rest();
        Ok(())
    }

    fn wait(&self) -> Result<(), Failure> {
        let due = [self.ending.as_ref().map(Ending::due), self.recorder.due()];
        let timeout = match due.into_iter().flatten().min() {
            None => PollTimeout::NONE,
            Some(due) => {
                let left = due.saturating_duration_since(Instant::now()).as_millis() + 1;
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut polled = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        polled.extend(
            self.pipes
                .iter()
                .map(|pipe| PollFd::new(pipe.end.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an ordered stop, and whether a kill was asked for.
    fn read_signals(&self) -> Result<(bool, bool), Failure> {
        let (mut stop, mut kill) = (false, false);
        while let Some(info) = self.signals.read_signal()? {
            let is = |signal: Signal| u32::try_from(signal as i32) == Ok(info.ssi_signo);
            stop |= is(Signal::SIGTERM) || is(Signal::SIGINT);
            kill |= is(Signal::SIGUSR1);
        }
        Ok((stop, kill))
    }

    fn stop(&mut self, kill: bool) {
        let first = !self.state.stop_requested;
        self.state.stop_requested = true;
        if kill {
            self.ending = Some(Ending::kill(Instant::now()));
        } else if self.ending.is_none() {
            self.end(Duration::from_millis(self.spec.stop_grace_ms));
        }
        if first {
            // Only news: if it cannot be written now, the final state says it too.
            let _ = self.save(Phase::Stopping);
        }
    }

    fn end(&mut self, limit: Duration) {
        if self.ending.is_none() {
            let grace = Duration::from_millis(self.spec.stop_grace_ms).min(limit);
            self.ending = Some(Ending::begin(Instant::now(), grace));
        }
    }

    /// Takes the exit status of every child that has ended, orphans of the processes included.
    fn reap(&mut self) {
        let mut ended = None;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let primary = self.note_end(pid.as_raw_pid(), status);
                    ended = ended.or(primary);
                }
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => {
                    self.empty = true;
                    break;
                }
            }
        }
        if let Some(index) = ended
            && self.ending.is_none()
        {
            self.state.ended_by = Some(self.state.processes[index].name.clone());
            if !self.empty {
                self.end(REST_GRACE);
                let _ = self.save(Phase::Stopping);
            }
        }
    }

    /// Notes how a child ended, if it is a named one; tells its index if it is primary.
    fn note_end(&mut self, pid: i32, status: WaitStatus) -> Option<usize> {
        let pid = u32::try_from(pid).ok()?;
        let index = self.state.processes.iter().position(|process| {
            process.pid == Some(pid) && matches!(process.status, Status::Running)
        })?;
        self.state.processes[index].status =
            match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Status::Exited { code },
                // The flag of wait(2) for a core dump.
                (None, Some(signal)) => Status::Signaled {
                    signal,
                    core: status.as_raw() & 0x80 != 0,
                },
                (None, None) => return None,
            };
        self.note_memory(index);
        self.spec.processes[index].primary.then_some(index)
    }

    /// Finds out whether a process that was killed by somebody else was killed for want of memory.
    fn note_memory(&mut self, index: usize) {
        // As a shell puts it whose child was killed.
        const KILLED: i32 = 128 + 9;
        let killed = matches!(
            self.state.processes[index].status,
            Status::Signaled { signal: 9, .. } | Status::Exited { code: KILLED }
        );
        if killed && self.ending.is_none() && self.memory.has_killed() {
            self.state.processes[index].oom_killed = true;
            self.state.memory = Some(self.memory.figures());
        }
    }

    /// Reads what the pipes hold, each in its turn.
    fn pump(&mut self) {
        let (buffer, recorder) = (&mut self.buffer, &mut self.recorder);
        self.pipes.retain_mut(|pipe| {
            for _ in 0..TURN {
                match pipe.pump(buffer, recorder) {
                    Pumped::More => {}
                    Pumped::Dry => return true,
                    Pumped::Closed => {
                        pipe.finish(recorder);
                        return false;
                    }
                }
            }
            true
        });
    }

    /// Keeps what is left in the pipes, and writes the final state.
    fn finish(&mut self) -> Result<(), Failure> {
        self.state.ended_at_ms = Some(unix_millis());
        self.recorder.tick();
        for mut pipe in std::mem::take(&mut self.pipes) {
            // All who could write are gone, so what is in there now is all. Somebody else may hold the
            // other end open (and even write): that must not keep the shim, so not until it is closed.
            for _ in 0..1024 {
                if pipe.pump(&mut self.buffer, &mut self.recorder) == Pumped::Closed {
                    break;
                }
                if is_dry(&pipe) {
                    break;
                }
            }
            pipe.finish(&mut self.recorder);
        }
        self.state.stderr_tail = self.recorder.stderr_tail();
        let exceeded = self
            .ending
            .as_ref()
            .is_some_and(|ending| ending.grace_exceeded);
        self.state.killed_after_grace = exceeded && self.state.ended_by.is_none();
        for _ in 0..LAST_TRIES {
            if self.recorder.finish() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut tries = 0;
        while let Err(error) = self.save(Phase::Ended) {
            tries += 1;
            if tries == LAST_TRIES {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn is_dry(pipe: &Pipe) -> bool {
    let mut polled = [PollFd::new(pipe.end.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(0))
}

/// A pipe of which the shim's end does not block.
fn pipe() -> io::Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}
