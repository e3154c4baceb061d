//! What every runtime must do, as tests that any runtime can be put through by [`suite!`].
//!
//! They use nothing but the trait and, where something must be killed behind the runtime's back, the
//! pid of the supervisor in the handle.

mod program;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_logfile::{Frames, Stream, Tail, TailReader};
use berth_shim::identity::{self, Signal};
use berth_shim::spec::{LogSpec, ProcessSpec, SPEC_VERSION, Spec};
use berth_shim::state::State;

use berth_model::resources::Resources;

use super::{
    Adopted, Confinement, Container, End, EndReason, EndState, Handle, Launch, PortOwner,
    ProcessEnd, Runtime, RuntimeError,
};

pub(crate) use program::shim;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a test of each function of the suite for the runtime that an expression makes.
macro_rules! suite {
    ($make:expr) => {
        $crate::runtime::conformance::suite!(@tests $make;
            an_exit_is_reported a_signal_is_reported a_failure_to_start_is_reported
            a_stop_is_ordered_and_idempotent who_ignores_a_stop_is_killed a_kill_is_at_once
            a_running_start_is_adopted_untouched an_ended_start_is_found a_lost_supervisor_is_told
            another_boot_is_told a_launch_that_never_was_is_called_off a_reused_pid_is_nobodys_instance
            a_folder_is_used_once what_is_listened_on_is_known what_is_used_is_known
            waiting_can_be_given_up_and_taken_up lines_are_kept);
    };
    (@tests $make:expr; $($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            // None: what it needs is not here, and that was told.
            let runtime: Option<std::sync::Arc<dyn $crate::runtime::Runtime>> = ($make)();
            let Some(runtime) = runtime else { return };
            $crate::runtime::conformance::$name(runtime).await;
        }
    )*};
}
pub(crate) use suite;

/// A start of one shell script.
pub(crate) fn shell(dir: &Path, script: &str) -> Launch {
    launch(dir, &["sh", "-c", script])
}

fn launch(dir: &Path, argv: &[&str]) -> Launch {
    let process = ProcessSpec {
        name: "module".into(),
        argv: argv.iter().map(ToString::to_string).collect(),
        env: std::env::vars()
            .filter(|(name, _)| name == "PATH")
            .collect(),
        cwd: "/".into(),
        primary: true,
    };
    let spec = Spec {
        version: SPEC_VERSION,
        instance: "conformance.1.0.1".into(),
        start: 1,
        processes: vec![process],
        stop_grace_ms: 600_000,
        log: LogSpec::default(),
        sandbox: None,
    };
    Launch {
        dir: dir.to_owned(),
        spec,
        container: Some(container(dir)),
        confinement: Some(Confinement {
            // The folder beside which a test keeps its files.
            writable: vec![dir.ancestors().nth(2).unwrap_or(dir).join("work")],
            readable: vec![std::env::current_exe().unwrap()],
            ..Confinement::default()
        }),
    }
}

/// The image of the suite's containers.
pub(crate) const IMAGE: &str = "berth-conformance:busybox";

/// For runtimes that make containers: the suite's modules are this machine's programs and this very test.
fn container(dir: &Path) -> Container {
    let exe = std::env::current_exe().unwrap();
    let libraries = ["/lib", "/lib64", "/usr/lib"].map(PathBuf::from);
    // The folder beside which a test keeps its files.
    let own = dir.ancestors().nth(2).unwrap_or(dir).to_owned();
    Container {
        gpus: Vec::new(),
        image: IMAGE.to_owned(),
        package: "/usr/lib".into(),
        writable: vec![own],
        readable: libraries
            .into_iter()
            .filter(|path| path.exists())
            .chain([exe])
            .collect(),
        resources: Resources::default(),
    }
}

/// Where the suite's starts have their folders: a data folder as an agent has one.
pub(crate) fn data() -> PathBuf {
    let data = std::env::temp_dir().join("berth-conformance");
    crate::files::make_dir(&data).unwrap();
    data.canonicalize().unwrap()
}

/// A folder for a start, and what ends the start with the test.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    runtime: Arc<dyn Runtime>,
}

impl Place {
    pub(crate) fn new(runtime: &Arc<dyn Runtime>) -> Self {
        let folder = tempfile::tempdir_in(data()).unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        Self {
            folder,
            runtime: Arc::clone(runtime),
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("starts/1")
    }

    /// A folder that the processes may write.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("work")
    }

    fn run(&self, script: &str) -> Handle {
        self.runtime.start(&shell(&self.dir(), script)).unwrap()
    }

    /// Runs a script that says "ready" and waits for that.
    pub(crate) fn run_ready(&self, script: &str) -> Handle {
        let handle = self.run(script);
        until("ready", || {
            lines(&handle).iter().any(|line| line == "ready")
        });
        handle
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(Adopted::Running(handle)) = self.runtime.adopt(&self.dir()) {
            let _ = self.runtime.kill(&handle);
        }
    }
}

pub(crate) const FOREVER: &str = "echo ready; while :; do sleep 0.01; done";

pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) async fn end(runtime: &Arc<dyn Runtime>, handle: &Handle) -> EndState {
    tokio::time::timeout(PATIENCE, runtime.ended(handle))
        .await
        .unwrap()
}

/// What it wrote to standard output.
pub(crate) fn lines(handle: &Handle) -> Vec<String> {
    let mut tail = TailReader::new(&handle.dir.join("logs"), 0);
    let mut lines = Vec::new();
    while let Tail::Frames { bytes, .. } = tail.read(1 << 20).unwrap() {
        let frames = Frames::new(&bytes).map(|frame| frame.unwrap().1);
        let text = frames.filter(|frame| frame.is_line() && frame.stream == Stream::Stdout);
        lines.extend(text.map(|frame| String::from_utf8_lossy(frame.payload).into_owned()));
    }
    lines
}

fn by_itself(end: End) -> EndReason {
    EndReason::Process(ProcessEnd {
        name: "module".into(),
        end,
    })
}

pub(crate) fn nothing_is_left(handle: &Handle) {
    let left = identity::find_by_marker(&handle.instance, handle.start, &handle.dir).unwrap();
    assert_eq!(left, []);
}

pub(crate) async fn an_exit_is_reported(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run("echo sorry >&2; exit 3");
    let end = end(&runtime, &handle).await;
    assert_eq!(end.reason, by_itself(End::Exited { code: 3 }));
    assert_eq!(end.stderr_tail.as_deref(), Some("sorry\n"));
    assert!(!end.stop_requested);
    assert!(end.ended_at_ms.unwrap() >= end.started_at_ms && end.started_at_ms > 0);
    nothing_is_left(&handle);
}

pub(crate) async fn a_signal_is_reported(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run("kill -9 $$");
    let end = end(&runtime, &handle).await;
    assert_eq!(
        end.reason,
        by_itself(End::Signaled {
            signal: 9,
            core: false
        })
    );
}

pub(crate) async fn a_failure_to_start_is_reported(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = runtime
        .start(&launch(&place.dir(), &["/no/such/program"]))
        .unwrap();
    let end = end(&runtime, &handle).await;
    let EndReason::Process(ProcessEnd {
        end: End::FailedToStart { error },
        ..
    }) = end.reason
    else {
        panic!("{end:?}");
    };
    assert!(error.contains("/no/such/program"), "{error}");
}

pub(crate) async fn a_stop_is_ordered_and_idempotent(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let script = format!("trap 'echo stopping; exit 7' TERM; {FOREVER}");
    let handle = place.run_ready(&script);
    runtime.stop(&handle).unwrap();
    runtime.stop(&handle).unwrap();
    let end = end(&runtime, &handle).await;
    assert_eq!(end.reason, EndReason::Stopped);
    assert!(end.stop_requested);
    assert_eq!(end.processes[0].end, End::Exited { code: 7 });
    assert_eq!(lines(&handle), ["ready", "stopping"]);
    nothing_is_left(&handle);
    runtime.stop(&handle).unwrap();
    runtime.kill(&handle).unwrap();
}

pub(crate) async fn who_ignores_a_stop_is_killed(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let mut launch = shell(&place.dir(), &format!("trap '' TERM; {FOREVER}"));
    launch.spec.stop_grace_ms = 100;
    let handle = runtime.start(&launch).unwrap();
    until("ready", || lines(&handle) == ["ready"]);
    runtime.stop(&handle).unwrap();
    assert_eq!(
        end(&runtime, &handle).await.reason,
        EndReason::KilledAfterGrace
    );
    nothing_is_left(&handle);
}

pub(crate) async fn a_kill_is_at_once(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let script =
        format!("trap '' TERM; (setsid sleep 600 </dev/null >/dev/null 2>&1 &); {FOREVER}");
    let handle = place.run_ready(&script);
    runtime.kill(&handle).unwrap();
    nothing_is_left(&handle);
    runtime.kill(&handle).unwrap();
    let end = end(&runtime, &handle).await;
    assert_eq!(end.reason, EndReason::Stopped);
}

pub(crate) async fn a_running_start_is_adopted_untouched(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run_ready(FOREVER);
    assert_eq!(
        runtime.adopt(&place.dir()).unwrap(),
        Adopted::Running(handle.clone())
    );
    let pid = runtime.stats(&handle).main_pid;
    assert!(pid.is_some());
    runtime.stop(&handle).unwrap();
    assert_eq!(end(&runtime, &handle).await.reason, EndReason::Stopped);
}

pub(crate) async fn an_ended_start_is_found(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run("exit 5");
    let end = end(&runtime, &handle).await;
    assert_eq!(
        runtime.adopt(&place.dir()).unwrap(),
        Adopted::Ended(end.clone())
    );
    assert_eq!(end.reason, by_itself(End::Exited { code: 5 }));
}

pub(crate) async fn a_lost_supervisor_is_told(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let daemon = "(setsid sleep 600 </dev/null >/dev/null 2>&1 &)";
    let handle = place.run_ready(&format!("{daemon}; {FOREVER}"));
    assert!(identity::send_signal(handle.supervisor, Signal::KILL).unwrap());
    let end = end(&runtime, &handle).await;
    assert_eq!(end.reason, EndReason::SupervisorLost);
    assert_eq!(end.processes[0].end, End::Unknown);
    nothing_is_left(&handle);
    assert_eq!(runtime.adopt(&place.dir()).unwrap(), Adopted::Lost(end));
}

pub(crate) async fn another_boot_is_told(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run_ready(FOREVER);
    let path = handle.dir.join("state.json");
    let before = std::fs::read_to_string(&path).unwrap();
    let other = before.replace(&handle.boot_id, "00000000-0000-0000-0000-000000000000");
    std::fs::write(&path, other).unwrap();
    let Adopted::Lost(end) = runtime.adopt(&place.dir()).unwrap() else {
        panic!("not lost")
    };
    assert_eq!(end.reason, EndReason::NodeRestarted);
    std::fs::write(&path, before).unwrap();
    assert!(matches!(
        runtime.adopt(&place.dir()).unwrap(),
        Adopted::Running(_)
    ));
}

pub(crate) async fn a_launch_that_never_was_is_called_off(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    assert_eq!(runtime.adopt(&place.dir()).unwrap(), Adopted::Nothing);
    std::fs::create_dir_all(place.dir()).unwrap();
    assert_eq!(runtime.adopt(&place.dir()).unwrap(), Adopted::Nothing);
    // An agent that died between writing the spec and launching.
    shell(&place.dir(), "exit 0")
        .spec
        .store(&place.dir())
        .unwrap();
    assert_eq!(runtime.adopt(&place.dir()).unwrap(), Adopted::Nothing);
    assert!(Spec::load(&place.dir()).is_err());
}

pub(crate) async fn a_reused_pid_is_nobodys_instance(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run_ready(FOREVER);
    let mut other = handle.clone();
    other.supervisor.start_ticks += 1;
    runtime.stop(&other).unwrap();
    assert_eq!(runtime.stats(&other).processes, 0);
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(
        runtime.listeners(&other, nowhere).unwrap(),
        PortOwner::Nobody
    );
    let state = State::load(&handle.dir).unwrap();
    assert!(!state.stop_requested);
    assert_eq!(
        runtime.adopt(&place.dir()).unwrap(),
        Adopted::Running(handle)
    );
}

pub(crate) async fn a_folder_is_used_once(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run("exit 0");
    end(&runtime, &handle).await;
    let again = runtime.start(&shell(&place.dir(), "exit 1"));
    assert!(matches!(again, Err(RuntimeError::Launch { .. })));
    let mut empty = shell(&place.dir().join("other"), "exit 0");
    empty.spec.processes.clear();
    assert!(matches!(
        runtime.start(&empty),
        Err(RuntimeError::Launch { .. })
    ));
    let relative = shell(Path::new("relative"), "exit 0");
    assert!(matches!(
        runtime.start(&relative),
        Err(RuntimeError::Launch { .. })
    ));
}

/// Not a test: a module that listens on a free port, for the next test. It runs only when asked for by name
/// and environment.
#[test]
#[ignore = "run by what_is_listened_on_is_known as a module"]
fn listening_module() {
    let Ok(file) = std::env::var("BERTH_TEST_PORT_FILE") else {
        return;
    };
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::fs::write(format!("{file}.new"), port.to_string()).unwrap();
    std::fs::rename(format!("{file}.new"), &file).unwrap();
    // Until it is stopped.
    for connection in socket.incoming() {
        drop(connection);
    }
}

pub(crate) async fn what_is_listened_on_is_known(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let exe = std::env::current_exe().unwrap();
    let name = "runtime::conformance::listening_module";
    let mut launch = launch(
        &place.dir(),
        &[exe.to_str().unwrap(), "--ignored", "--exact", name],
    );
    let file = place.work().join("port");
    let env = &mut launch.spec.processes[0].env;
    env.insert("BERTH_TEST_PORT_FILE".into(), file.to_str().unwrap().into());
    let handle = runtime.start(&launch).unwrap();
    until("a port", || file.exists());
    let port: u16 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(runtime.listeners(&handle, at).unwrap(), PortOwner::Instance);
    assert_eq!(runtime.ports(&handle).unwrap(), [port]);
    let mine = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = mine.local_addr().unwrap();
    let me = Some(std::process::id());
    assert_eq!(
        runtime.listeners(&handle, other).unwrap(),
        PortOwner::Other { pid: me }
    );
    runtime.stop(&handle).unwrap();
    end(&runtime, &handle).await;
    assert_eq!(runtime.listeners(&handle, at).unwrap(), PortOwner::Nobody);
    assert_eq!(runtime.ports(&handle).unwrap(), [0u16; 0]);
}

pub(crate) async fn what_is_used_is_known(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run("while :; do :; done");
    until("time to be used", || runtime.stats(&handle).cpu_ms >= 20);
    let stats = runtime.stats(&handle);
    assert!(stats.rss_bytes > 100_000, "{stats:?}");
    assert_eq!(stats.processes, 1);
    assert!(stats.main_pid.is_some());
    runtime.kill(&handle).unwrap();
    assert_eq!(runtime.stats(&handle), super::ProcessStats::default());
}

pub(crate) async fn waiting_can_be_given_up_and_taken_up(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run_ready(FOREVER);
    let short = Duration::from_millis(10);
    for _ in 0..3 {
        assert!(
            tokio::time::timeout(short, runtime.ended(&handle))
                .await
                .is_err()
        );
    }
    let two = (runtime.ended(&handle), runtime.ended(&handle));
    runtime.stop(&handle).unwrap();
    let (one, other) = tokio::time::timeout(PATIENCE, async { tokio::join!(two.0, two.1) })
        .await
        .unwrap();
    assert_eq!(one, other);
    assert_eq!(one.reason, EndReason::Stopped);
}

pub(crate) async fn lines_are_kept(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let handle = place.run("seq 1 1000");
    end(&runtime, &handle).await;
    let expected: Vec<String> = (1..=1000).map(|number| number.to_string()).collect();
    assert_eq!(lines(&handle), expected);
}
