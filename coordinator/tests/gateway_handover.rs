//! The gateway's program replaced under load, several times, without a request that fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const LONG: Duration = Duration::from_secs(30);

/// A service with one instance that answers every request with its number and closes nothing.
async fn instance() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some((_, body)) = message(&mut stream).await {
                    // So that some request is under way at any moment.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    let answer = [head.as_bytes(), &body].concat();
                    if stream.write_all(&answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// One HTTP message with a content length: its head in lower case, and its body. None: closed before it.
async fn message(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if stream.read_line(&mut head).await.ok()? == 0 {
            assert_eq!(before, 0, "cut off within a head: {head:?}");
            return None;
        }
        if &head[before..] == "\r\n" {
            break;
        }
    }
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// A gateway's program, its folder, and whatever process serves now.
struct Program {
    dir: TempDir,
    first: Child,
    current: u32,
}

impl Program {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let table = format!(
            r#"{{"format":1,"table":{{"version":{{"epoch":1,"term":1,"generation":1}},"services":{{"dga":
            {{"revisions":{{"1":{{"serial":1,"version":"1.0.0","instances":{{"dga.1.0.1":"{}"}}}}}}}}}}}}}}"#,
            instance().await
        );
        std::fs::write(dir.path().join("routes.json"), table).unwrap();
        let config = "name = \"edge\"\nendpoint = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:0\"\n\
                      admin_listen = \"127.0.0.1:0\"\nthreads = 2\ndrain_timeout = \"4s\"\n";
        std::fs::write(dir.path().join("gateway.toml"), config).unwrap();
        let first = command(dir.path()).spawn().unwrap();
        Self {
            current: first.id(),
            dir,
            first,
        }
    }

    async fn address(&self) -> SocketAddr {
        let path = self.dir.path().join("gateway-endpoint");
        until(|| std::fs::read_to_string(&path).ok()?.trim().parse().ok()).await
    }

    async fn reload(&mut self) {
        let (status, said, errors) = reload(self.dir.path()).await;
        assert!(status.success(), "{errors}");
        let pid = said.split(' ').nth(1).unwrap().parse().unwrap();
        assert_ne!(pid, self.current);
        self.current = pid;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = kill_process(pid(self.current), Signal::KILL);
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_berth-coordinator")));
    command
        .args(["--role", "gateway", "--config"])
        .arg(dir.join("gateway.toml"))
        .arg("--data")
        .arg(dir)
        .env("BERTH_LOG", "warn")
        .stdout(Stdio::null());
    command
}

/// Whether it went well, and what it said. Into files, for the new program keeps open what it inherits.
async fn reload(dir: &Path) -> (ExitStatus, String, String) {
    let file = |name| std::fs::File::create(dir.join(name)).unwrap();
    let mut command = command(dir);
    command.arg("reload");
    command.stdout(file("out")).stderr(file("err"));
    let mut child = command.spawn().unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let status = status.await.unwrap();
    let text = |name| std::fs::read_to_string(dir.join(name)).unwrap();
    (status, text("out"), text("err"))
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

async fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < LONG, "no answer in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Clients that ask all the time and count. Nothing is ever sent twice.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    asked: AtomicU64,
    connected: AtomicU64,
}

impl Load {
    /// Asks as often over one connection as it may.
    async fn ask(&self, address: SocketAddr, keep: bool, pause: Duration) {
        while !self.stop.load(Ordering::SeqCst) {
            let stream = TcpStream::connect(address).await.expect("an open door");
            self.connected.fetch_add(1, Ordering::SeqCst);
            let mut stream = BufReader::new(stream);
            loop {
                let number = self.asked.fetch_add(1, Ordering::SeqCst).to_string();
                let close = if keep { "" } else { "connection: close\r\n" };
                let request = format!(
                    "POST /s/dga/x HTTP/1.1\r\nhost: g\r\n{close}content-length: {}\r\n\r\n{number}",
                    number.len()
                );
                stream.write_all(request.as_bytes()).await.expect("sent");
                let (head, body) = message(&mut stream).await.expect("an answer");
                assert!(head.starts_with("http/1.1 200"), "{head}");
                assert_eq!(body, number.as_bytes());
                if head.contains("connection: close") || self.stop.load(Ordering::SeqCst) {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn progress(&self, more: u64) {
        let goal = self.asked.load(Ordering::SeqCst) + more;
        until(|| (self.asked.load(Ordering::SeqCst) >= goal).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_programs_replace_each_other() {
    let mut program = Program::start().await;
    let address = program.address().await;
    let load = Arc::new(Load::default());
    let mut clients = JoinSet::new();
    for (keep, pause) in [(true, 0), (true, 5), (true, 200), (true, 900), (false, 0)] {
        for _ in 0..2 {
            let load = Arc::clone(&load);
            let pause = Duration::from_millis(pause);
            clients.spawn(async move { load.ask(address, keep, pause).await });
        }
    }
    load.progress(200).await;
    let mut served = BTreeSet::from([program.current]);
    for _ in 0..4 {
        program.reload().await;
        served.insert(program.current);
        load.progress(200).await;
    }
    assert_eq!(served.len(), 5);
    // The first one ends by itself.
    until(|| program.first.try_wait().unwrap()).await;
    load.stop.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(program.address().await, address);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_program_that_cannot_serve_changes_nothing() {
    let mut program = Program::start().await;
    let address = program.address().await;
    let config = program.dir.path().join("gateway.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    let load = Arc::new(Load::default());
    let asking = Arc::clone(&load);
    let client = tokio::spawn(async move { asking.ask(address, true, Duration::ZERO).await });
    // A mistake in the file, an address that is taken, a certificate that is not there.
    let taken = format!("admin_listen = \"{address}\"");
    for bad in [
        "nonsense = 1\n".to_owned() + &good,
        good.replace("admin_listen = \"127.0.0.1:0\"", &taken),
        good.clone() + "[tls]\ncertificate = \"/no\"\nkey = \"/no\"\n",
    ] {
        std::fs::write(&config, bad).unwrap();
        let (status, _, errors) = reload(program.dir.path()).await;
        assert!(!status.success());
        assert!(!errors.is_empty());
        load.progress(20).await;
    }
    // Another address is bound anew, and the one that stays is taken over.
    let spare = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let moved = spare.local_addr().unwrap();
    drop(spare);
    let admin = format!("admin_listen = \"{moved}\"\nthreads = 1");
    let changed = good.replace("admin_listen = \"127.0.0.1:0\"\nthreads = 2", &admin);
    std::fs::write(&config, changed).unwrap();
    program.reload().await;
    load.progress(20).await;
    let mut admin = BufReader::new(TcpStream::connect(moved).await.unwrap());
    let probe = b"GET /readyz HTTP/1.1\r\nhost: g\r\n\r\n";
    admin.write_all(probe).await.unwrap();
    let (head, _) = message(&mut admin).await.unwrap();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    load.stop.store(true, Ordering::SeqCst);
    client.await.unwrap();
    assert_eq!(program.address().await, address);
}
