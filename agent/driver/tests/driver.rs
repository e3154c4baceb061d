//! The real driver against a small server of the tests' own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What a server answers, after so many requests, to this one.
type Answer = dyn Fn(usize, &Value) -> (u16, String) + Send + Sync;

struct Server {
    port: u16,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    fn new(answer: impl Fn(usize, &Value) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept): (Arc<Answer>, _) = (Arc::new(answer), bodies.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, bodies) = (answer.clone(), kept.clone());
                std::thread::spawn(move || while_asked(stream.unwrap(), &*answer, &bodies));
            }
        });
        Self { port, bodies }
    }

    /// Answers with `{"row": the instance}` for each.
    fn echo() -> Self {
        Self::new(|_, body| (200, predictions(body)))
    }

    fn requests(&self) -> usize {
        self.bodies.lock().unwrap().len()
    }
}

fn predictions(body: &Value) -> String {
    let instances = body["instances"].as_array().unwrap();
    let rows: Vec<Value> = instances.iter().map(|row| json!({ "row": row })).collect();
    serde_json::to_string_pretty(&json!({ "predictions": rows })).unwrap()
}

fn while_asked(stream: TcpStream, answer: &Answer, bodies: &Mutex<Vec<Value>>) {
    let mut out = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((path, body)) = request(&mut reader) {
        let (status, text) = match path.as_str() {
            "/healthz" => (200, "ok".to_owned()),
            _ => {
                let body: Value = serde_json::from_slice(&body).unwrap();
                let before = {
                    let mut bodies = bodies.lock().unwrap();
                    bodies.push(body.clone());
                    bodies.len() - 1
                };
                answer(before, &body)
            }
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        if status == 0 || out.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let (mut first, mut length) = (String::new(), 0);
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first.split_whitespace().nth(1)?.to_owned(), body))
}

fn drive(dir: &Path, port: u16, env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-driver"));
    command
        .env("BERTH_JOB_INPUT", dir.join("input"))
        .env("BERTH_JOB_OUTPUT", dir.join("output"))
        .env(
            "BERTH_PREDICTOR_URL",
            format!("http://127.0.0.1:{port}/predict"),
        )
        .env(
            "BERTH_JOB_READY",
            format!("tcp://127.0.0.1:{port} http://127.0.0.1:{port}/healthz"),
        );
    command.envs(env.iter().copied());
    command.output().unwrap()
}

fn failed(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn rows(count: usize) -> String {
    (0..count).map(|i| format!("{{\"n\": {i}}}\n")).collect()
}

fn expected(count: usize) -> String {
    (0..count)
        .map(|i| format!("{{\"row\":{{\"n\":{i}}}}}\n"))
        .collect()
}

#[test]
fn every_row_gets_its_prediction_in_order() {
    let server = Server::new(|_, body| {
        // Later batches overtake earlier ones.
        let first = body["instances"][0]["n"].as_u64().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(
            u64::from(first % 14 == 0) * 20,
        ));
        (200, predictions(body))
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("input"), rows(1000)).unwrap();
    let output = drive(
        dir.path(),
        server.port,
        &[("BERTH_JOB_BATCH", "7"), ("BERTH_JOB_IN_FLIGHT", "5")],
    );
    failed(&output, 0);
    assert_eq!(
        std::fs::read_to_string(dir.path().join("output")).unwrap(),
        expected(1000)
    );
    assert_eq!(server.requests(), 143);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("done: 1000 rows"), "{said}");
    assert!(!dir.path().join("output.part").exists());
}

#[test]
fn no_rows_give_an_empty_output() {
    let server = Server::echo();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("input"), "\n").unwrap();
    failed(&drive(dir.path(), server.port, &[]), 0);
    assert_eq!(std::fs::read(dir.path().join("output")).unwrap(), b"");
    assert_eq!(server.requests(), 0);
}

#[test]
fn a_folder_becomes_a_folder_of_the_same_names() {
    let server = Server::echo();
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("input");
    std::fs::create_dir_all(input.join("sub")).unwrap();
    std::fs::write(input.join("a.jsonl"), rows(3)).unwrap();
    std::fs::write(input.join("sub/b.jsonl"), rows(40)).unwrap();
    // Left by an attempt that was killed.
    std::fs::create_dir(dir.path().join("output.part")).unwrap();
    std::fs::write(dir.path().join("output.part/old"), "x").unwrap();
    failed(&drive(dir.path(), server.port, &[]), 0);
    let read = |name: &str| std::fs::read_to_string(dir.path().join("output").join(name)).unwrap();
    assert_eq!(
        (read("a.jsonl"), read("sub/b.jsonl")),
        (expected(3), expected(40))
    );
    assert!(!dir.path().join("output/old").exists());
}

#[test]
fn not_now_and_broken_connections_are_tried_again() {
    let server = Server::new(|before, body| match before {
        0 => (503, "{\"error\": \"batch queue full\"}".to_owned()),
        1 => (429, String::new()),
        2 => (0, String::new()),
        3 => (500, "oops".to_owned()),
        _ => (200, predictions(body)),
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("input"), rows(5)).unwrap();
    failed(
        &drive(dir.path(), server.port, &[("BERTH_JOB_IN_FLIGHT", "1")]),
        0,
    );
    assert_eq!(
        std::fs::read_to_string(dir.path().join("output")).unwrap(),
        expected(5)
    );
    assert_eq!(server.requests(), 5);
}

#[test]
fn not_now_for_too_long_is_told_in_the_servers_words() {
    let server = Server::new(|_, _| (503, "{\"error\": \"batch queue full\"}".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("input"), rows(5)).unwrap();
    let told = failed(
        &drive(dir.path(), server.port, &[("BERTH_JOB_PATIENCE_MS", "300")]),
        5,
    );
    assert!(
        told.contains("rows 1 to 5") && told.contains("503: batch queue full"),
        "{told}"
    );
    assert!(!dir.path().join("output").exists());
}

#[test]
fn a_refused_row_is_named_with_its_beginning_and_the_servers_words() {
    let server = Server::new(|_, body| {
        let bad = body["instances"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["n"] == 17);
        if bad {
            (400, "{\"error\": \"wrong shape\"}".to_owned())
        } else {
            (200, predictions(body))
        }
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("input"), rows(50)).unwrap();
    let told = failed(&drive(dir.path(), server.port, &[]), 5);
    assert!(told.contains("row 18 of"), "{told}");
    assert!(
        told.contains("status 400: wrong shape") && told.contains("the row begins: {\"n\": 17}"),
        "{told}"
    );
    assert!(!dir.path().join("output").exists());
}

#[test]
fn rows_that_are_good_only_one_by_one_are_taken_so() {
    let server = Server::new(
        |_, body| match body["instances"].as_array().unwrap().len() {
            1 => (200, predictions(body)),
            _ => (400, "{\"error\": \"ragged\"}".to_owned()),
        },
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("input"), rows(40)).unwrap();
    failed(&drive(dir.path(), server.port, &[]), 0);
    assert_eq!(
        std::fs::read_to_string(dir.path().join("output")).unwrap(),
        expected(40)
    );
}

#[test]
fn a_wrong_count_and_a_row_that_is_no_json_fail() {
    let server = Server::new(|_, _| (200, "{\"predictions\": [1]}".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("input"), rows(3)).unwrap();
    let told = failed(&drive(dir.path(), server.port, &[]), 5);
    assert!(told.contains("holds 1 predictions for 3 rows"), "{told}");
    std::fs::write(dir.path().join("input"), "{}\nnope\n").unwrap();
    let told = failed(&drive(dir.path(), server.port, &[]), 3);
    assert!(
        told.contains("row 2 of") && told.ends_with("nope\n"),
        "{told}"
    );
}

#[test]
fn a_module_that_never_gets_ready_is_told_with_the_last_word() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("input"), rows(3)).unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let told = failed(
        &drive(dir.path(), nobody, &[("BERTH_JOB_START_TIMEOUT_MS", "200")]),
        4,
    );
    assert!(
        told.contains("was not ready within 0.2 s") && told.contains("refused"),
        "{told}"
    );
    let told = failed(
        &drive(dir.path(), nobody, &[("BERTH_PREDICTOR_URL", "")]),
        2,
    );
    assert!(told.contains("BERTH_PREDICTOR_URL is not set"), "{told}");
}
