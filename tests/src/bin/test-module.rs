//! A module for tests: a small threaded HTTP server that behaves, or misbehaves, as `TEST_MODE` says.
//!
//! `POST …:predict` answers `{"predictions": [{"instance", "serial", "pid", "request"}]}` and logs one
//! line `request N` per request, where N is the body's `request`.

#![allow(clippy::print_stdout, reason = "its output is what the log tests read")]

#[path = "test-module/probes.rs"]
mod probes;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == "sleep") {
        sleep_for_ever();
    }
    eprintln!(
        "starting {} in mode {:?}",
        var("BERTH_INSTANCE"),
        var("TEST_MODE")
    );
    let mut port: u16 = var("PORT").parse().unwrap_or(0);
    match var("TEST_MODE").as_str() {
        "exit" => {
            eprintln!("cannot find my weights");
            std::process::exit(3);
        }
        "never-healthy" => sleep_for_ever(),
        "wrong-port" => port += 1,
        "ignore-term" => ignore_term(),
        "flood" => {
            std::thread::spawn(flood);
        }
        "double-fork" => double_fork(),
        "probe" => probes::run(),
        "secret" => probes::secret(),
        "hog" => hog(),
        "slow-start" => std::thread::sleep(Duration::from_millis(500)),
        _ => {}
    }
    // A Pod's module is told another address than a machine's.
    let host = match var("HOST") {
        host if host.is_empty() => "127.0.0.1".to_owned(),
        host => host,
    };
    let listener = match TcpListener::bind((host.as_str(), port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on {port}: {error}");
            std::process::exit(4);
        }
    };
    println!("listening on {port}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// `sh` can ignore a signal for its successor, which keeps this program free of unsafe code.
fn ignore_term() {
    if var("TERM_IGNORED").is_empty() {
        use std::os::unix::process::CommandExt;
        let me = std::env::current_exe().unwrap_or_default();
        let error = Command::new("/bin/sh")
            .args(["-c", "trap '' TERM; exec \"$0\""])
            .arg(me)
            .env("TERM_IGNORED", "1")
            .exec();
        eprintln!("cannot run sh: {error}");
        std::process::exit(5);
    }
}

/// A daemon of its own: another session, no parent, all streams closed.
fn double_fork() {
    let me = std::env::current_exe().unwrap_or_default();
    let script = "setsid \"$0\" sleep </dev/null >/dev/null 2>&1 &";
    let status = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(me)
        .status();
    eprintln!("made a daemon: {status:?}");
}

/// Uses memory until there is none left.
fn hog() -> ! {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(vec![1; 1 << 20]);
    }
}

fn flood() {
    let line = format!("flood {}\n", "x".repeat(200));
    // The lock is taken for each line: requests are logged in between.
    while std::io::stdout().write_all(line.as_bytes()).is_ok() {}
}

fn serve(stream: TcpStream) {
    let Ok(mut out) = stream.try_clone() else {
        return;
    };
    // A request must not wait for the peer's delayed acknowledgement of the previous one.
    let _ = out.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = read_request(&mut reader) {
        let answer = answer(&head, &body);
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut head = String::new();
    if reader.read_line(&mut head).ok()? == 0 {
        return None;
    }
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        chunked |= line == "transfer-encoding: chunked";
    }
    let body = if chunked {
        read_chunked(reader)?
    } else {
        read_exact(reader, length)?
    };
    Some((head, String::from_utf8_lossy(&body).into_owned()))
}

fn read_exact(reader: &mut BufReader<TcpStream>, length: usize) -> Option<Vec<u8>> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn read_chunked(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        body.extend(read_exact(reader, length)?);
        reader.read_line(&mut line).ok()?;
        if length == 0 {
            return Some(body);
        }
    }
}

fn answer(head: &str, body: &str) -> String {
    let (status, text) = if head.starts_with("GET /healthz") {
        ("200 OK", "ok".to_owned())
    } else if head.contains(":predict") || head.starts_with("POST /echo") {
        let request = body.split_once("\"request\":").map_or("0", |(_, rest)| {
            rest.trim_start()
                .split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap_or("0")
        });
        if let Ok(ms) = var("TEST_DELAY_MS").parse() {
            std::thread::sleep(Duration::from_millis(ms));
        }
        println!("request {request}");
        let text = format!(
            "{{\"predictions\":[{{\"instance\":\"{}\",\"serial\":\"{}\",\"pid\":{},\"request\":{request}}}]}}",
            var("BERTH_INSTANCE"),
            var("BERTH_MODEL_SERIAL"),
            std::process::id(),
        );
        ("200 OK", text)
    } else {
        ("404 Not Found", "{\"error\":\"no such path\"}".to_owned())
    };
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
}
