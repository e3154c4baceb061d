//! The module that the tests run: this very test binary, told so by its environment.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// In the environment: how the module shall behave.
pub(crate) const MODE: &str = "TEST_MODULE";

/// The command that makes a module of this test binary.
pub(crate) fn command() -> Vec<String> {
    let own = std::env::current_exe()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    [
        &own,
        "--exact",
        "module::run_as_module",
        "--nocapture",
        "--test-threads=1",
    ]
    .map(str::to_owned)
    .to_vec()
}

static HEALTHY: AtomicBool = AtomicBool::new(true);

/// Not a test of anything when run as one: the mode is not set then.
#[test]
fn run_as_module() {
    let Ok(mode) = std::env::var(MODE) else {
        return;
    };
    // What the test harness has begun to say on this line ends.
    say("\nmodule begins");
    match mode.as_str() {
        "exit" => {
            say("last words");
            std::process::exit(3);
        }
        "end-well" => {
            (0..2000).for_each(|i| say(&format!("line {i}")));
            std::process::exit(0);
        }
        "abort" => std::process::abort(),
        "silent" => park(),
        "wrong-port" => {
            let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
            park()
        }
        "ignore-term" => {
            ignore_term();
            serve()
        }
        _ => serve(),
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn park() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn ignore_term() {
    let exe = std::env::current_exe().unwrap();
    assert!(exe.exists());
    // The disposition survives exec: a shell sets it without unsafe code here.
    if std::env::var_os("TERM_IS_IGNORED").is_none() {
        use std::os::unix::process::CommandExt;
        let mut shell = std::process::Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg("trap '' TERM; exec \"$@\"")
            .arg("sh")
            .args(command());
        shell.env("TERM_IS_IGNORED", "1");
        panic!("{}", shell.exec());
    }
}

fn serve() -> ! {
    let port = std::env::var("PORT").unwrap();
    let host = std::env::var("HOST").unwrap();
    let listener = TcpListener::bind(format!("{host}:{port}")).unwrap();
    for stream in listener.incoming() {
        std::thread::spawn(move || answer(stream.unwrap()));
    }
    unreachable!()
}

fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&piece[..read]),
        }
    }
    let text = String::from_utf8_lossy(&request);
    let path = text.split_whitespace().nth(1).unwrap_or("/").to_owned();
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let mut status = "200 OK";
    match path {
        "/healthz" if !HEALTHY.load(Ordering::SeqCst) => status = "503 Service Unavailable",
        "/sick" => HEALTHY.store(false, Ordering::SeqCst),
        "/well" => HEALTHY.store(true, Ordering::SeqCst),
        // Lines FROM to TO.
        "/log" => {
            let (from, to) = query.split_once('-').unwrap();
            for i in from.parse::<u64>().unwrap()..to.parse::<u64>().unwrap() {
                say(&format!("line {i}"));
            }
        }
        "/env" => say(&format!(
            "env {query}={}",
            std::env::var(query).unwrap_or_default()
        )),
        "/exit" => std::process::exit(4),
        _ => {}
    }
    let body = format!(
        "{} {} {}",
        std::process::id(),
        std::env::var("BERTH_INSTANCE").unwrap(),
        std::env::var("BERTH_MODEL_SERIAL").unwrap()
    );
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()));
}

/// Asks a module for a path; returns the body.
pub(crate) fn ask(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default())
}
