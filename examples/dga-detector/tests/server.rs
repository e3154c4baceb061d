//! The real server, spoken to over a socket.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use dga_detector::model::FILE;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

struct Server {
    child: Child,
    port: u16,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

/// Lines of a stream, read by a thread so that a full pipe never stops the server.
fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    receive
}

fn command(model: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dga-detector"));
    command
        .env("PORT", "0")
        .env("BERTH_MODEL_DIR", model)
        .env("BERTH_MODEL_NAME", "dga")
        .env("BERTH_MODEL_SERIAL", "2")
        .env("BERTH_INSTANCE", "dga.1.0.1")
        .env_remove("HOST")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn shipped_model() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model")
}

impl Server {
    fn start() -> Self {
        let mut child = command(&shipped_model()).spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        let port = loop {
            let line = stderr.recv_timeout(Duration::from_secs(30)).unwrap();
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        Self {
            child,
            port,
            stdout,
            stderr,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream
    }

    /// Status and JSON body of one request.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = self.connect();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        answer(&mut stream)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end of the connection.
fn answer(stream: &mut TcpStream) -> (u16, Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(
        head.to_lowercase()
            .contains("content-type: application/json"),
        "{head}"
    );
    (status, serde_json::from_str(body).unwrap())
}

#[test]
fn judges_names_logs_each_request_and_ends_on_sigterm() {
    let mut server = Server::start();
    assert_eq!(server.ask("GET", "/healthz", "").0, 200);
    let body = json!({ "instances": ["wikipedia.org", "xjwqpfzkdvbtrm.biz"] }).to_string();
    let (status, answer) = server.ask("POST", "/v1/models/dga/versions/2:predict", &body);
    assert_eq!(status, 200);
    let verdicts: Vec<_> = answer["predictions"].as_array().unwrap().iter().collect();
    assert_eq!(verdicts[0]["verdict"], "benign");
    assert_eq!(verdicts[1]["verdict"], "dga");
    assert!(verdicts[1]["score"].as_f64().unwrap() > verdicts[0]["score"].as_f64().unwrap());
    let (status, answer) = server.ask("POST", "/v1/models/other:predict", &body);
    assert_eq!(
        (status, &answer["error"]),
        (404, &json!("Servable not found for request: Latest(other)"))
    );

    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let log: Vec<String> = server.stdout.iter().collect();
    assert_eq!(log.len(), 3, "{log:?}");
    assert!(log[0].starts_with("GET /healthz 200 n=0 us="), "{}", log[0]);
    assert!(
        log[1].starts_with("POST /v1/models/dga/versions/2:predict 200 n=2 us="),
        "{}",
        log[1]
    );
    assert!(
        log[2].starts_with("POST /v1/models/other:predict 404 n=0 us="),
        "{}",
        log[2]
    );
    assert_eq!(
        server.stderr.iter().last().as_deref(),
        Some("dga-detector: stopped")
    );
}

#[test]
fn a_request_in_flight_is_answered_after_sigterm_and_an_idle_connection_closed() {
    let mut server = Server::start();
    // A connection that never says anything must not hold up the end.
    let _silent = server.connect();
    let mut idle = server.connect();
    write!(idle, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut first = [0; 4];
    idle.read_exact(&mut first).unwrap();
    let body = json!({ "instances": ["debian.org"] }).to_string();
    let mut stream = server.connect();
    // `100 Continue` shows that the server is in the midst of this request.
    write!(
        stream,
        "POST /v1/models/dga:predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    let mut interim = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut interim).unwrap();
    server.signal(Signal::TERM);
    let stopping = server.stderr.iter().find(|line| line.contains("stopping"));
    assert!(stopping.is_some());
    stream.write_all(body.as_bytes()).unwrap();
    let (status, reply) = answer(&mut stream);
    assert_eq!(
        (status, &reply["predictions"][0]["domain"]),
        (200, &json!("debian.org"))
    );
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn too_large_a_body_is_refused_announced_or_not() {
    let server = Server::start();
    let mut stream = server.connect();
    write!(
        stream,
        "POST /v1/models/dga:predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-length: 2000000\r\n\r\n"
    )
    .unwrap();
    assert_eq!(answer(&mut stream).0, 413);
    let mut stream = server.connect();
    write!(
        stream,
        "POST /v1/models/dga:predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n100001\r\n"
    )
    .unwrap();
    stream.write_all(&vec![b' '; 0x0010_0001]).unwrap();
    let mut start = [0; "HTTP/1.1 413".len()];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    // It still serves.
    assert_eq!(server.ask("GET", "/v1/models/dga", "").0, 200);
}

#[test]
fn a_damaged_model_ends_it_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let output = command(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run().contains("cannot read the model"), "missing");
    let mut bytes = std::fs::read(shipped_model().join(FILE)).unwrap();
    bytes[5000] ^= 0x40;
    std::fs::write(folder.path().join(FILE), &bytes).unwrap();
    assert!(
        run().contains("error: the model is corrupted: wrong checksum"),
        "flipped"
    );
    bytes.truncate(5000);
    std::fs::write(folder.path().join(FILE), &bytes).unwrap();
    assert!(run().contains("error: the model is corrupted"), "truncated");
}
