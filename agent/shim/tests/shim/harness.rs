//! One start of an instance in a folder of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use berth_logfile::{Frames, Stream, Tail, TailReader};
use berth_shim::identity::{self, Signal};
use berth_shim::spec::{LogSpec, ProcessSpec, SPEC_VERSION, Spec};
use berth_shim::state::{Phase, ProcessIdentity, State, Status};

/// Longest wait for anything: a machine may be busy, a test that hangs is worse.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a value.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that runs a shell script.
pub(crate) fn script(name: &str, script: &str) -> ProcessSpec {
    command(name, &["sh", "-c", script])
}

/// A process that runs a program.
pub(crate) fn command(name: &str, argv: &[&str]) -> ProcessSpec {
    ProcessSpec {
        name: name.into(),
        argv: argv.iter().map(ToString::to_string).collect(),
        env: BTreeMap::new(),
        cwd: "/".into(),
        primary: true,
    }
}

/// A spec with a grace that no test waits for.
pub(crate) fn spec(processes: Vec<ProcessSpec>) -> Spec {
    Spec {
        version: SPEC_VERSION,
        instance: "shim-test.1.0.1".into(),
        start: 1,
        processes,
        stop_grace_ms: 600_000,
        log: LogSpec {
            segment_bytes: 64 << 10,
            budget_bytes: 64 << 20,
        },
        sandbox: None,
    }
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) process: u8,
    pub(crate) stream: Stream,
    pub(crate) partial: bool,
    pub(crate) text: Vec<u8>,
}

/// What a log holds.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) lines: Vec<Line>,
    pub(crate) dropped: u64,
    pub(crate) names: BTreeMap<u8, String>,
}

impl Log {
    /// Adds the frames in `bytes`.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for (_, frame) in Frames::new(bytes).map(Result::unwrap) {
            if let Some(gap) = frame.gap() {
                self.dropped += gap.lines;
            } else if let Some(name) = frame.process_name() {
                self.names
                    .insert(frame.process, String::from_utf8(name.to_vec()).unwrap());
            } else {
                self.lines.push(Line {
                    process: frame.process,
                    stream: frame.stream,
                    partial: frame.is_partial(),
                    text: frame.payload.to_vec(),
                });
            }
        }
    }

    /// Reads a whole log.
    pub(crate) fn read(dir: &Path) -> Self {
        let mut log = Self::default();
        let mut tail = TailReader::new(&dir.join("logs"), 0);
        while let Tail::Frames { bytes, .. } = tail.read(1 << 20).unwrap() {
            log.add(&bytes);
        }
        log
    }

    /// The texts of a stream.
    pub(crate) fn texts(&self, stream: Stream) -> Vec<String> {
        let of = |line: &&Line| line.stream == stream;
        let text = |line: &Line| String::from_utf8_lossy(&line.text).into_owned();
        self.lines.iter().filter(of).map(text).collect()
    }
}

/// A shim at work. Dropped, it takes its whole tree with it.
pub(crate) struct Start {
    pub(crate) dir: PathBuf,
    shim: Child,
    spec: Spec,
    /// What runs in the folder is this shim's.
    owner: bool,
    /// Removed at the end.
    _folder: Option<tempfile::TempDir>,
}

impl Start {
    /// Launches the shim as an agent does.
    pub(crate) fn new(spec: &Spec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut start = Self::at(folder.path(), spec);
        start._folder = Some(folder);
        start
    }

    /// Launches in a folder of the caller's.
    pub(crate) fn at(dir: &Path, spec: &Spec) -> Self {
        let mut shim = Command::new(env!("CARGO_BIN_EXE_berth-shim"));
        shim.args(["run", "--dir"]).arg(dir);
        Self::by(shim, dir, spec)
    }

    /// Launches with a command of the caller's.
    pub(crate) fn by(mut shim: Command, dir: &Path, spec: &Spec) -> Self {
        spec.store(dir).unwrap();
        let shim = shim
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            dir: dir.to_owned(),
            shim,
            spec: spec.clone(),
            owner: true,
            _folder: None,
        }
    }

    /// Waits until all processes were started.
    pub(crate) fn running(&self) -> State {
        until("running", || {
            State::load(&self.dir)
                .ok()
                .filter(|state| state.phase == Phase::Running)
        })
    }

    /// Waits for the end of the shim, and checks that nothing is left behind.
    pub(crate) fn ended(&mut self) -> State {
        let status = self.exit_status();
        assert!(status.success(), "the shim failed: {status}");
        let state = State::load(&self.dir).unwrap();
        assert_eq!(state.phase, Phase::Ended);
        assert!(state.ended_at_ms.unwrap() >= state.started_at_ms);
        assert_eq!(self.leftovers(), []);
        state
    }

    /// Waits for the end of the shim.
    pub(crate) fn exit_status(&mut self) -> ExitStatus {
        until("the shim's end", || self.shim.try_wait().unwrap())
    }

    /// The exit code of a shim that refuses to run.
    pub(crate) fn shim_exit_code(&mut self) -> Option<i32> {
        // What runs in the folder is another shim's, and is to stay.
        let code = self.exit_status().code();
        self.owner = false;
        code
    }

    /// Whether the shim has ended.
    pub(crate) fn try_ended(&mut self) -> bool {
        self.shim.try_wait().unwrap().is_some()
    }

    /// Signals the shim.
    pub(crate) fn signal(&self, signal: Signal) {
        let shim = identity::identify(self.shim.id()).unwrap().unwrap();
        assert!(identity::send_signal(shim, signal).unwrap());
    }

    /// Processes that carry this start's marker.
    pub(crate) fn leftovers(&self) -> Vec<ProcessIdentity> {
        identity::find_by_marker(&self.spec.instance, self.spec.start, &self.dir).unwrap()
    }

    /// Waits for a line of standard output.
    pub(crate) fn line(&self, text: &str) {
        until(text, || {
            Log::read(&self.dir)
                .texts(Stream::Stdout)
                .iter()
                .any(|line| line == text)
                .then_some(())
        });
    }

    pub(crate) fn log(&self) -> Log {
        Log::read(&self.dir)
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        let _ = self.shim.kill();
        let _ = self.shim.wait();
        if !self.owner {
            return;
        }
        for leftover in self.leftovers() {
            let _ = identity::send_signal(leftover, Signal::KILL);
        }
    }
}

/// The status of the first process.
pub(crate) fn first(state: &State) -> &Status {
    &state.processes[0].status
}
