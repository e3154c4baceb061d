//! What both launchers must keep a module from, as tests; and the runtimes' conformance suite over both.
//!
//! They need root. Those of systemd run where BERTH_TEST_SYSTEMD is 1, as `tests/tests/hosts_isolation.rs` sets it on a
//! host that it has booted.

mod as_root;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_model::resources::Resources;
use berth_shim::identity::{self, Signal};

use crate::config::{IsolationConfig, LauncherChoice};
use crate::runtime::conformance::{self, Place, end, lines, shell, until};
use crate::runtime::process::ProcessRuntime;
use crate::runtime::{EndReason, Handle, Launch, Runtime};

fn runtime(launcher: LauncherChoice) -> Option<Arc<dyn Runtime>> {
    if !rustix::process::geteuid().is_root() {
        berth_skipped::skip("isolation", "users and control groups need root");
        return None;
    }
    let config = IsolationConfig {
        launcher,
        tasks: 48,
        ..IsolationConfig::default()
    };
    let (shim, data) = (conformance::shim(), conformance::data());
    let runtime = ProcessRuntime::isolated(shim, &config, &data).unwrap();
    Some(Arc::new(runtime))
}

fn fork() -> Option<Arc<dyn Runtime>> {
    runtime(LauncherChoice::Fork)
}

fn systemd() -> Option<Arc<dyn Runtime>> {
    let wanted = std::env::var_os("BERTH_TEST_SYSTEMD").is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("skipped: BERTH_TEST_SYSTEMD is not 1");
        return None;
    }
    runtime(LauncherChoice::Systemd)
}

/// Makes a test of each function below for a launcher, and of the runtimes' suite.
macro_rules! suite {
    ($launcher:ident; $($name:ident)*) => {
        mod $launcher {
            crate::runtime::conformance::suite!(super::$launcher);

            $(
                #[tokio::test]
                async fn $name() {
                    let Some(runtime) = super::$launcher() else { return };
                    super::$name(runtime).await;
                }
            )*
        }
    };
    ($($launcher:ident)*) => {$(
        suite!($launcher;
            a_module_is_somebody_else_without_any_right its_log_and_state_are_out_of_its_reach
            the_agents_files_and_other_instances_are_out_of_its_reach what_it_is_given_it_can_only_read
            too_much_memory_is_told_as_that too_many_processes_are_refused
            its_folder_stays_its_own_from_start_to_start what_hides_from_its_shim_ends_with_it
            only_what_the_manifest_says_is_dialled no_way_leads_out_by_proc_or_devices
            nobodys_sockets_are_answered the_keyring_is_its_own one_that_multiplies_is_ended);
    )*};
}
suite!(fork systemd);

/// Runs a script that says "ready" last; what it said before.
fn said(place: &Place, script: &str) -> Vec<String> {
    let handle = place.run_ready(&format!("{script}\necho ready; exec sleep 600"));
    let mut lines = lines(&handle);
    lines.pop();
    lines
}

/// A script that says of each command whether it succeeded.
fn tries(commands: &[String]) -> String {
    let one = |command: &String| {
        format!("if ( {command} ) 2>/dev/null; then echo yes; else echo no; fi\n")
    };
    commands.iter().map(one).collect()
}

fn missing(runtime: &Arc<dyn Runtime>, what: &str) -> bool {
    let missing = runtime.isolation([127, 0, 0, 1].into()).unwrap().missing;
    let said = missing.iter().find(|said| said.starts_with(what));
    // Units are tested for the rest.
    if let Some(said) = said.filter(|_| what != "egress") {
        berth_skipped::skip("isolation", said);
    }
    said.is_some()
}

/// Has this thread hand a right down to whatever it starts, as an agent may that was given some.
fn inherit_a_right() {
    let one = rustix::thread::CapabilitySet::CHOWN;
    let mut mine = rustix::thread::capabilities(None).unwrap();
    mine.inheritable |= one;
    rustix::thread::set_capabilities(None, mine).unwrap();
    rustix::thread::configure_capability_in_ambient_set(one, true).unwrap();
}

async fn a_module_is_somebody_else_without_any_right(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    inherit_a_right();
    let script =
        "id -u; id -g; id -G; grep -E '^(NoNewPrivs|Cap(Inh|Prm|Eff|Bnd|Amb)):' /proc/self/status";
    let said = said(&place, script);
    assert!(
        said[0] != "0" && said[1] != "0" && said[2] == said[1],
        "{said:?}"
    );
    let rights: Vec<&str> = said[3..]
        .iter()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(
        rights,
        ["0000000000000000"; 5]
            .into_iter()
            .chain(["1"])
            .collect::<Vec<_>>()
    );
    let owner = std::fs::metadata(place.work()).unwrap().uid();
    assert_eq!(owner.to_string(), said[0]);
}

async fn its_log_and_state_are_out_of_its_reach(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let dir = place.dir();
    let dir = dir.display();
    let commands = [
        format!("cat {dir}/spec.json"),
        format!("echo x >> {dir}/state.json"),
        format!("ls {dir}/logs"),
        format!("touch {dir}/logs/x"),
        format!("mv {dir} {dir}.gone"),
        // The shim above it.
        "kill -9 $PPID".to_owned(),
        "cat /proc/$PPID/environ".to_owned(),
    ];
    assert_eq!(said(&place, &tries(&commands)), ["no"; 7]);
}

async fn the_agents_files_and_other_instances_are_out_of_its_reach(runtime: Arc<dyn Runtime>) {
    let (one, other) = (Place::new(&runtime), Place::new(&runtime));
    let secret = one.work().join("secret");
    let first = one.run_ready(&format!(
        "cd {}; umask 0; echo mine > secret; echo ready; exec sleep 600",
        one.work().display()
    ));
    until("a secret", || secret.exists());
    let key = conformance::data().join("key");
    std::fs::write(&key, "agent's").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key, mode).unwrap();
    let pid = runtime.stats(&first).main_pid.unwrap();
    let (secret, key, data) = (secret.display(), key.display(), conformance::data());
    let commands = [
        format!("cat {secret}"),
        format!("echo x >> {secret}"),
        format!("cat {key}"),
        format!("ls {}/*", data.display()),
        format!("cat /proc/{pid}/environ"),
        format!("kill -9 {pid}"),
        "cat /etc/shadow".to_owned(),
        "test -n \"$(ls -A /root)\"".to_owned(),
    ];
    assert_eq!(said(&other, &tries(&commands)), ["no"; 8]);
    assert_eq!(
        std::fs::read_to_string(one.work().join("secret")).unwrap(),
        "mine\n"
    );
}

async fn what_it_is_given_it_can_only_read(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let package = place.work().with_file_name("package");
    std::fs::create_dir(&package).unwrap();
    std::fs::write(package.join("model"), "weights").unwrap();
    let (model, work) = (package.join("model"), place.work());
    let (model, folder, work) = (model.display(), package.display(), work.display());
    let commands = [
        format!("test \"$(cat {model})\" = weights"),
        format!("echo x > {work}/file"),
        format!("echo x > {model}"),
        format!("rm -f {model}"),
        format!("chmod 777 {model}"),
        format!("touch {folder}/x"),
        "touch /usr/x".to_owned(),
        "touch /etc/x".to_owned(),
        "touch /var/lib/x".to_owned(),
    ];
    let mut launch = shell(&place.dir(), "");
    launch.spec.processes[0].argv[2] = tries(&commands);
    launch
        .confinement
        .as_mut()
        .unwrap()
        .readable
        .push(package.clone());
    let handle = runtime.start(&launch).unwrap();
    end(&runtime, &handle).await;
    assert_eq!(lines(&handle), [["yes"; 2].as_slice(), &["no"; 7]].concat());
}

/// What gives a device, or a setting of the kernel, away.
fn of_the_machine() -> Vec<String> {
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten();
    let disks = disks.flatten().map(|disk| {
        let path = Path::new("/dev").join(disk.file_name());
        format!("head -c 1 {}", path.display())
    });
    let others = [
        "head -c 1 /dev/mem",
        // Only opened: if that is possible, nothing is to break.
        ": >> /proc/sys/kernel/core_pattern",
        ": >> /proc/sys/kernel/modprobe",
        ": >> /proc/sysrq-trigger",
        "mknod disk b 8 0",
        "cat /etc/shadow",
    ];
    disks.chain(others.map(str::to_owned)).collect()
}

async fn no_way_leads_out_by_proc_or_devices(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let me = std::process::id();
    let mut commands = of_the_machine();
    for pid in ["$PPID".to_owned(), "1".to_owned(), me.to_string()] {
        commands.push(format!("ls /proc/{pid}/root/"));
        commands.push(format!("ls /proc/{pid}/cwd/"));
        commands.push(format!("ls /proc/{pid}/fd/ | grep ."));
        commands.push(format!("cat /proc/{pid}/mem"));
    }
    // What the shim has open is not open here: nothing but standard input, output and errors, and the listing's own.
    commands.push("test $(ls /proc/self/fd | wc -l) -ne 4".to_owned());
    let work = place.work();
    let script = format!("cd {}\n{}", work.display(), tries(&commands));
    assert_eq!(said(&place, &script), vec!["no"; commands.len()]);
}

async fn nobodys_sockets_are_answered(runtime: Arc<dyn Runtime>) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = format!("berth-isolation-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let connect = |path: &str| {
        format!(
            "perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; \
             connect($s, pack(\"Sa*\", AF_UNIX, \"{path}\")) or die'"
        )
    };
    let systemd = runtime.isolation([127, 0, 0, 1].into()).unwrap().launcher == "systemd";
    let mut commands = vec!["perl -MSocket -e 0 || exit 0; exit 1".to_owned()];
    if systemd {
        commands.push(connect("/run/dbus/system_bus_socket"));
        commands.push(connect("/run/systemd/private"));
        commands.push("unshare --user true".to_owned());
    } else if berth_shim::sandbox::has_scopes() {
        commands.push(connect(&format!("\\0{name}")));
    }
    let place = Place::new(&runtime);
    assert_eq!(said(&place, &tries(&commands)), vec!["no"; commands.len()]);
}

async fn the_keyring_is_its_own(runtime: Arc<dyn Runtime>) {
    let keyctl = if cfg!(target_arch = "x86_64") {
        250
    } else {
        219
    };
    // keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
    let mine = format!("perl -e 'print syscall({keyctl}, 0, -3, 0)'");
    let here = std::process::Command::new("sh")
        .args(["-c", &mine])
        .output();
    let here = String::from_utf8(here.unwrap().stdout).unwrap();
    if !here.parse::<i64>().is_ok_and(|id| id > 0) {
        let why = format!("keyrings cannot be asked for here: keyctl says {here:?}");
        berth_skipped::skip("isolation", &why);
        return;
    }
    let place = Place::new(&runtime);
    let there = said(&place, &format!("echo $({mine})"));
    assert!(there[0].parse::<i64>().is_ok_and(|id| id > 0), "{there:?}");
    assert_ne!(there[0], here);
}

/// A launch that may use so much of the machine.
fn limited(place: &Place, script: &str, resources: Resources) -> Launch {
    let mut launch = shell(&place.dir(), script);
    launch.confinement.as_mut().unwrap().resources = resources;
    launch
}

async fn too_much_memory_is_told_as_that(runtime: Arc<dyn Runtime>) {
    const LIMIT: u64 = 64 << 20;
    if missing(&runtime, "memory") {
        return;
    }
    let resources = Resources {
        memory_bytes: LIMIT,
        ..Resources::default()
    };
    // By itself, and as a shell's child: the shell then exits with 137.
    for script in ["exec tail /dev/zero", "tail /dev/zero; exit $?"] {
        let place = Place::new(&runtime);
        let handle = runtime.start(&limited(&place, script, resources)).unwrap();
        let end = end(&runtime, &handle).await;
        let EndReason::OutOfMemory {
            process,
            limit,
            peak,
        } = end.reason
        else {
            panic!("{end:?}");
        };
        assert_eq!((process.as_str(), limit), ("module", Some(LIMIT)));
        // It is counted in pages, and a kernel before 5.19 does not tell it in version 2.
        assert!(
            peak.is_none_or(|peak| peak > LIMIT / 2 && peak <= LIMIT),
            "{peak:?}"
        );
    }
}

async fn too_many_processes_are_refused(runtime: Arc<dyn Runtime>) {
    if missing(&runtime, "tasks") {
        return;
    }
    let place = Place::new(&runtime);
    // A shell that cannot fork ends.
    let script =
        "(i=0; while [ $i -lt 200 ]; do sleep 600 & i=$((i+1)); echo $i; done) 2>/dev/null";
    let said = said(&place, script);
    assert!((10..48).contains(&said.len()), "{}", said.len());
}

async fn its_folder_stays_its_own_from_start_to_start(runtime: Arc<dyn Runtime>) {
    let place = Place::new(&runtime);
    let work = place.work();
    // As the agent lays it out.
    std::fs::create_dir(work.join("input")).unwrap();
    std::fs::write(work.join("input/rows"), "rows").unwrap();
    let script = format!(
        "cd {} && cat input/rows && echo >> input/rows && mkdir -p own && echo x >> own/file && chmod 700 own",
        work.display()
    );
    for start in 1..=3 {
        let mut launch = shell(&place.dir().with_file_name(start.to_string()), &script);
        launch.spec.start = start;
        let handle = runtime.start(&launch).unwrap();
        let end = end(&runtime, &handle).await;
        assert!(
            format!("{:?}", end.reason).contains("Exited { code: 0 }"),
            "{end:?}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(work.join("own/file")).unwrap(),
        "x\nx\nx\n"
    );
}

/// The processes of a user.
fn of_user(uid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let folders = entries.filter(|entry| entry.metadata().is_ok_and(|found| found.uid() == uid));
    let living = folders.filter(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    });
    living.map(|entry| entry.path()).collect()
}

async fn what_hides_from_its_shim_ends_with_it(runtime: Arc<dyn Runtime>) {
    if missing(&runtime, "memory") {
        return;
    }
    let place = Place::new(&runtime);
    // In a session of its own, and without the environment by which leftovers are known.
    let script = format!(
        "(env -i setsid sleep 600 </dev/null >/dev/null 2>&1 &); {}",
        conformance::FOREVER
    );
    let handle: Handle = place.run_ready(&script);
    let uid = std::fs::metadata(place.work()).unwrap().uid();
    until("a hidden process", || of_user(uid).len() >= 2);
    assert!(identity::send_signal(handle.supervisor, Signal::KILL).unwrap());
    let end = end(&runtime, &handle).await;
    assert_eq!(end.reason, EndReason::SupervisorLost);
    assert_eq!(of_user(uid), Vec::<PathBuf>::new());
    assert!(!Path::new(&handle.dir).join("launcher.json").exists());
}

async fn one_that_multiplies_is_ended(runtime: Arc<dyn Runtime>) {
    if missing(&runtime, "tasks") {
        return;
    }
    let place = Place::new(&runtime);
    let script = format!(
        "cd {} && echo 'while :; do sh bomb & sleep 0.01; done' > bomb; echo ready; sh bomb; {}",
        place.work().display(),
        conformance::FOREVER
    );
    let handle = place.run_ready(&script);
    let uid = std::fs::metadata(place.work()).unwrap().uid();
    // As many as it may have, or nearly: they come and go.
    until("a crowd", || of_user(uid).len() > 24);
    runtime.kill(&handle).unwrap();
    assert_eq!(of_user(uid), Vec::<PathBuf>::new());
}

async fn only_what_the_manifest_says_is_dialled(runtime: Arc<dyn Runtime>) {
    if missing(&runtime, "egress") {
        return;
    }
    // Whoever runs this has two addresses that are not loopback's on one machine, and something that listens on both.
    let Some((one, other)) = std::env::var("BERTH_TEST_DIAL").ok().and_then(|dial| {
        let (one, other) = dial.split_once(',')?;
        Some((one.to_owned(), other.to_owned()))
    }) else {
        eprintln!("skipped: BERTH_TEST_DIAL names no two addresses");
        return;
    };
    let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let here = here.local_addr().unwrap().to_string();
    let dial = |address: &String| {
        let (host, port) = address.rsplit_once(':').unwrap();
        format!("timeout 5 bash -c 'exec 3<>/dev/tcp/{host}/{port}'")
    };
    let script = tries(&[dial(&here), dial(&one), dial(&other)]);
    for (egress, expected) in [
        (vec![], ["yes", "no", "no"]),
        (vec![one.clone()], ["yes", "yes", "no"]),
    ] {
        let place = Place::new(&runtime);
        let mut launch = shell(&place.dir(), &script);
        launch.confinement.as_mut().unwrap().egress = egress;
        let handle = runtime.start(&launch).unwrap();
        end(&runtime, &handle).await;
        assert_eq!(lines(&handle), expected);
    }
}
