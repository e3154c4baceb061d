//! Tasks of jobs: what they are given, what they leave, and that they run once whatever happens.

mod life;
mod work;

use berth_model::instance::{InstanceSpec, InstanceStatus, Phase};
use berth_model::job::{Piece, ShardInput, TaskSpec};

use crate::coordinator::Coordinator;
use crate::node::Package;

pub(crate) const ID: &str = "score.1.2.1";

/// A package whose `[job] command` is a shell script.
pub(crate) fn script(coordinator: &Coordinator, script: &str) -> Package {
    let manifest = "[package]\nname = \"score\"\nversion = \"1.0.0\"\n\
        [model]\npath = \"model\"\nformat = \"custom\"\n\
        [module]\nkind = \"custom\"\ncommand = [\"/bin/false\"]\nstop_grace = \"2s\"\n\
        [job]\ncommand = [\"/bin/sh\", \"job.sh\"]\n";
    let files = [
        ("berth.toml", manifest),
        ("model/weights", "w"),
        ("job.sh", script),
    ];
    Package::with(coordinator, &files)
}

/// A module that answers with the length of each row, and the driver beside it.
pub(crate) fn served(coordinator: &Coordinator, module: &str) -> Package {
    let manifest = "[package]\nname = \"score\"\nversion = \"1.0.0\"\n\
        [model]\npath = \"model\"\nformat = \"custom\"\n\
        [module]\nkind = \"custom\"\ncommand = [\"python3\", \"serve.py\"]\nstop_grace = \"2s\"\n\
        [health]\nhttp = \"/healthz\"\n[job]\nbatch = 3\n";
    let files = [
        ("berth.toml", manifest),
        ("model/weights", "w"),
        ("serve.py", module),
    ];
    Package::with(coordinator, &files)
}

pub(crate) const MODULE: &str = r#"
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(200, "ok")
    def do_POST(self):
        rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
        if "crash" in rows:
            print("goodbye", flush=True)
            os._exit(9)
        bad = [row for row in rows if not isinstance(row, str)]
        if bad:
            self.answer(400, {"error": "not a text"})
        else:
            self.answer(200, {"predictions": [{"text": row, "length": len(row)} for row in rows]})
    def log_message(self, *args):
        pass

ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// Puts an input onto the coordinator; tells its one piece.
pub(crate) fn blob(coordinator: &Coordinator, name: &str, bytes: &[u8]) -> Piece {
    let blob = format!("blake3:{}", blake3::hash(bytes).to_hex());
    coordinator.with(|state| state.blobs.insert(blob.clone(), bytes.to_vec()));
    Piece {
        name: name.to_owned(),
        blob: blob.parse().unwrap(),
        offset: 0,
        bytes: bytes.len() as u64,
    }
}

pub(crate) fn task(package: &Package, input: ShardInput) -> InstanceSpec {
    InstanceSpec {
        task: Some(TaskSpec {
            index: 2,
            completions: 4,
            input,
            deadline: None,
        }),
        ..package.spec(ID, "none")
    }
}

pub(crate) fn file(pieces: Vec<Piece>) -> ShardInput {
    ShardInput {
        folder: false,
        pieces,
    }
}

async fn stopped(coordinator: &Coordinator) -> InstanceStatus {
    coordinator.phase(ID, Phase::Stopped).await
}

pub(crate) fn outputs(coordinator: &Coordinator) -> Vec<(String, String, Vec<u8>)> {
    coordinator.with(|state| state.outputs.clone())
}

/// How often the script said that it begins, over all starts.
fn begins(coordinator: &Coordinator) -> usize {
    coordinator.lines(ID, "begin").len()
}
