//! Hand-overs between real processes, which are killed at every step.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_handover::{Claim, Entrance, HandoverError, Offer, Socket, Taking, enter, owner, reload};
use rustix::process::{Pid, Signal, Uid, getpid, kill_process};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);
/// What a child process shall do, and where.
const STEP: &str = "BERTH_HANDOVER_TEST_STEP";
const PLACE: &str = "BERTH_HANDOVER_TEST_PLACE";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn place(&self) -> PathBuf {
        self.0.path().join("serving.sock")
    }
}

async fn first(place: &Path) -> Claim {
    match enter(place, "test 1", &Value::Null, LONG).await.unwrap() {
        Entrance::First(claim) => claim,
        Entrance::Takeover(_) => panic!("somebody serves already"),
    }
}

async fn takeover(place: &Path) -> Taking {
    match enter(place, "test 2", &"taker", LONG).await.unwrap() {
        Entrance::First(_) => panic!("nobody serves"),
        Entrance::Takeover(taking) => taking,
    }
}

const ANY: &str = "127.0.0.1:0";

fn listening() -> (TcpListener, Socket) {
    let listener = TcpListener::bind(ANY).unwrap();
    let socket = Socket {
        name: "clients".to_owned(),
        address: ANY.to_owned(),
        socket: listener.try_clone().unwrap().into(),
    };
    (listener, socket)
}

async fn offering(place: &Path) -> (TcpListener, Offer) {
    let (listener, socket) = listening();
    let offer = first(place).await.offer("test 1", vec![socket]).unwrap();
    (listener, offer)
}

fn only(sockets: Vec<OwnedFd>) -> TcpListener {
    let [socket]: [OwnedFd; 1] = sockets.try_into().unwrap();
    TcpListener::from(socket)
}

/// Hands over to whoever comes next.
async fn hand_over(offer: &mut Offer) {
    let ready = offer.next().await.give(&Value::Null, LONG).await.unwrap();
    offer.confirm(ready).await.unwrap();
}

fn die() -> ! {
    kill_process(getpid(), Signal::KILL).unwrap();
    unreachable!()
}

fn child(step: &str, place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "as_a_child", "--nocapture"])
        .env(STEP, step)
        .env(PLACE, place)
        .stdout(Stdio::null());
    command
}

/// Not a test: the other process of the tests below.
#[test]
fn as_a_child() {
    let Some(step) = std::env::var_os(STEP) else {
        return;
    };
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(play(step.to_str().unwrap(), &place));
}

async fn play(step: &str, place: &Path) {
    match step {
        "dies with the sockets" => {
            let _taking = takeover(place).await;
            die();
        }
        "dies on saying ready" => {
            let taking = takeover(place).await;
            let ready = taking.ready(&Value::Null);
            // One poll sends the word.
            let _ = tokio::time::timeout(Duration::ZERO, ready).await;
            die();
        }
        "takes over" => {
            let claim = takeover(place).await.ready(&Value::Null).await.unwrap();
            let offer = claim.offer("child", Vec::new()).unwrap();
            offer.next().await;
        }
        "ends at once" => std::process::exit(3),
        "hangs" => std::future::pending().await,
        "owner dies when one comes" => {
            let (_listener, offer) = offering(place).await;
            let _candidate = offer.next().await;
            die();
        }
        "owner dies while it waits" => {
            let (_listener, offer) = offering(place).await;
            let candidate = offer.next().await;
            let mut given = std::pin::pin!(candidate.give(&Value::Null, LONG));
            let _ = tokio::time::timeout(Duration::from_millis(100), given.as_mut()).await;
            // With the connection open: it can't say a word any more.
            die();
        }
        "owner dies before it lets go" => {
            let (_listener, offer) = offering(place).await;
            let given = offer.next().await.give(&Value::Null, LONG).await;
            let _ready = given.unwrap();
            die();
        }
        other => panic!("no such step: {other}"),
    }
}

async fn until_owned(place: &Path) {
    while owner(place).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn sockets_and_the_lock_change_hands() {
    let folder = Folder::new();
    let place = folder.place();
    let (listener, mut offer) = offering(&place).await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let early = TcpStream::connect(address).unwrap();
    let owning = tokio::spawn(async move {
        let candidate = offer.next().await;
        assert_eq!(candidate.program(), "test 2");
        assert_eq!(candidate.state::<String>(), "taker");
        assert_eq!(candidate.pid(), std::process::id());
        let ready = candidate.give(&vec![7], LONG).await.unwrap();
        assert_eq!(ready.state::<String>(), "prepared");
        offer.confirm(ready).await.unwrap();
    });
    let mut taking = takeover(&place).await;
    assert_eq!(taking.program(), "test 1");
    assert_eq!(taking.state::<Vec<u8>>(), [7]);
    // From another version: not to be read, so the default.
    assert_eq!(taking.state::<String>(), "");
    assert!(taking.sockets("clients", "127.0.0.1:1").is_empty());
    assert!(taking.sockets("admin", ANY).is_empty());
    let listener = only(taking.sockets("clients", ANY));
    assert!(taking.sockets("clients", ANY).is_empty());
    let claim = taking.ready(&"prepared").await.unwrap();
    owning.await.unwrap();
    // Who waited in the queue is not lost.
    let (accepted, from) = listener.accept().unwrap();
    assert_eq!(from, early.local_addr().unwrap());
    drop(accepted);
    let offer = claim.offer("test 2", Vec::new()).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&place.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let (who, _) = tokio::join!(owner(&place), async {
        tokio::time::timeout(Duration::from_millis(300), offer.next())
            .await
            .is_err()
    });
    assert_eq!(who.unwrap().program, "test 2");
    drop(offer);
    assert!(!place.exists());
    drop(first(&place).await);
}

#[tokio::test]
async fn a_taker_that_is_killed_changes_nothing() {
    let folder = Folder::new();
    let place = folder.place();
    let (listener, mut offer) = offering(&place).await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut dying = child("dies with the sockets", &place).spawn().unwrap();
    let given = offer.next().await.give(&Value::Null, LONG).await;
    assert!(matches!(given, Err(HandoverError::Gone)));
    dying.wait().unwrap();
    let mut dying = child("dies on saying ready", &place).spawn().unwrap();
    let ready = offer.next().await.give(&Value::Null, LONG).await.unwrap();
    dying.wait().unwrap();
    assert!(matches!(
        offer.confirm(ready).await,
        Err(HandoverError::Gone)
    ));
    // The offer stands, and the socket is open.
    TcpStream::connect(address).unwrap();
    let (taking, ()) = tokio::join!(
        async { takeover(&place).await.ready(&Value::Null).await },
        hand_over(&mut offer)
    );
    taking.unwrap();
}

#[tokio::test]
async fn what_a_killed_owner_had_goes_on_with_the_taker() {
    for step in [
        "owner dies when one comes",
        "owner dies while it waits",
        "owner dies before it lets go",
    ] {
        let folder = Folder::new();
        let place = folder.place();
        let mut dying = child(step, &place).spawn().unwrap();
        until_owned(&place).await;
        let claim = match enter(&place, "test", &Value::Null, LONG).await.unwrap() {
            // Nothing had been given yet.
            Entrance::First(claim) => {
                assert_eq!(step, "owner dies when one comes");
                claim
            }
            Entrance::Takeover(mut taking) => {
                assert_ne!(taking.owner(), std::process::id());
                let listener = only(taking.sockets("clients", ANY));
                if step == "owner dies while it waits" {
                    dying.wait().unwrap();
                }
                let claim = taking.ready(&Value::Null).await.unwrap();
                let address = listener.local_addr().unwrap();
                TcpStream::connect(address).unwrap();
                listener.accept().unwrap();
                claim
            }
        };
        dying.wait().unwrap();
        // A file that the dead one left is in nobody's way.
        let offer = claim.offer("test", Vec::new()).unwrap();
        drop(offer);
    }
}

#[tokio::test]
async fn two_take_over_one_after_the_other() {
    let folder = Folder::new();
    let place = folder.place();
    let (_listener, mut offer) = offering(&place).await;
    let mut both = Vec::new();
    for name in ["a", "b"] {
        let place = place.clone();
        both.push(tokio::spawn(async move {
            let entrance = enter(&place, name, &Value::Null, LONG).await.unwrap();
            let Entrance::Takeover(mut taking) = entrance else {
                panic!("nobody serves");
            };
            let from = taking.program().to_owned();
            let socket = Socket {
                name: "clients".to_owned(),
                address: ANY.to_owned(),
                socket: taking.sockets("clients", ANY).remove(0),
            };
            let claim = taking.ready(&Value::Null).await.unwrap();
            let mut offer = claim.offer(name, vec![socket]).unwrap();
            if from == "test 1" {
                hand_over(&mut offer).await;
            }
            from
        }));
    }
    hand_over(&mut offer).await;
    let mut from = Vec::new();
    for task in both {
        from.push(task.await.unwrap());
    }
    from.sort();
    assert!(
        from == ["a", "test 1"] || from == ["b", "test 1"],
        "{from:?}"
    );
}

#[tokio::test]
async fn who_is_not_ready_in_time_must_stop() {
    let folder = Folder::new();
    let place = folder.place();
    let (_listener, mut offer) = offering(&place).await;
    let late = tokio::spawn({
        let place = place.clone();
        async move { takeover(&place).await }
    });
    let given = offer.next().await.give(&Value::Null, Duration::ZERO).await;
    assert!(matches!(given, Err(HandoverError::TooLong(_))));
    let refused = late.await.unwrap().ready(&Value::Null).await;
    assert!(
        matches!(refused, Err(HandoverError::Refused(_))),
        "{refused:?}"
    );
    let (taking, ()) = tokio::join!(
        async { takeover(&place).await.ready(&Value::Null).await },
        hand_over(&mut offer)
    );
    taking.unwrap();
}

#[tokio::test]
async fn an_owner_that_does_not_answer_is_named() {
    let folder = Folder::new();
    let place = folder.place();
    let _claim = first(&place).await;
    let entered = enter(&place, "test", &Value::Null, Duration::from_millis(50)).await;
    let Err(HandoverError::Held { path, why }) = entered else {
        panic!("the lock is held");
    };
    assert!(path.ends_with("serving.sock.lock"));
    assert!(why.contains("cannot connect to"), "{why}");
}

#[tokio::test]
async fn a_long_path_and_a_stale_file_are_fine() {
    let folder = Folder::new();
    let long = folder.0.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let place = long.join("serving.sock");
    std::fs::write(&place, "left behind").unwrap();
    let (_listener, mut offer) = offering(&place).await;
    let (taking, ()) = tokio::join!(
        async { takeover(&place).await.ready(&Value::Null).await },
        hand_over(&mut offer)
    );
    taking.unwrap();
}

#[tokio::test]
async fn a_program_is_started_beside_the_running_one() {
    let folder = Folder::new();
    let place = folder.place();
    let reloading = |step| reload(&place, child(step, &place), LONG);
    let nobody = reloading("takes over").await;
    assert!(matches!(nobody, Err(HandoverError::Nobody { .. })));
    let (_listener, mut offer) = offering(&place).await;
    let owning = tokio::spawn(async move {
        hand_over(&mut offer).await;
        offer
    });
    let ended = reloading("ends at once").await;
    assert!(matches!(ended, Err(HandoverError::Ended(status)) if status.code() == Some(3)));
    let hung = reload(&place, child("hangs", &place), Duration::from_millis(300)).await;
    assert!(matches!(hung, Err(HandoverError::TooLong(_))));
    let pid = reloading("takes over").await.unwrap();
    assert_eq!(owner(&place).await.unwrap().pid, pid);
    owning.await.unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// One message of the protocol, written down by hand, and its answer.
fn say(place: &Path, message: &Value) -> Value {
    let mut stream = UnixStream::connect(place).unwrap();
    let bytes = serde_json::to_vec(message).unwrap();
    let length = u32::try_from(bytes.len()).unwrap();
    // Whoever is refused for what it is may be told, and the connection closed, before it has said anything.
    let _ = stream.write_all(&[&length.to_be_bytes(), &bytes[..]].concat());
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    serde_json::from_slice(&answer).unwrap()
}

fn take(versions: &[u32]) -> Value {
    json!({"take": {"versions": versions, "pid": 1, "program": "x", "state": {}, "later": 1}})
}

#[tokio::test]
async fn versions_are_agreed_on() {
    let folder = Folder::new();
    let place = folder.place();
    let (_listener, offer) = offering(&place).await;
    let at = place.clone();
    let asking = tokio::task::spawn_blocking(move || {
        let refused = say(&at, &take(&[2, 3]));
        let why = refused["refused"]["why"].as_str().unwrap().to_owned();
        assert_eq!(why, "it speaks the versions [1], not [2, 3]");
        say(&at, &take(&[1, 2]))
    });
    let _ = offer.next().await.give(&Value::Null, Duration::ZERO).await;
    assert_eq!(asking.await.unwrap()["give"]["version"], 1);
}

#[tokio::test]
async fn a_stranger_gets_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let place = folder.place();
    let (_listener, offer) = offering(&place).await;
    // Even if the file let everybody in.
    for path in [folder.0.path(), &place] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let asking = std::thread::spawn(move || {
        let nobody = Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        say(&place, &take(&[1]))
    });
    let waited = tokio::time::timeout(LONG, async {
        tokio::select! {
            _ = offer.next() => panic!("a stranger is no candidate"),
            () = until_finished(&asking) => {}
        }
    });
    waited.await.unwrap();
    let answer = asking.join().unwrap();
    let why = answer["refused"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("belongs to user 65534"), "{why}");
}

async fn until_finished<T>(thread: &std::thread::JoinHandle<T>) {
    while !thread.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
