//! Tasks of jobs: run once, whatever happens to the agent and the coordinator.

use berth_model::instance::{InstanceSpec, InstanceStatus, Phase, Reason};
use berth_model::job::{Piece, ShardInput, TaskSpec};
use berth_model::time::Span;

use crate::coordinator::Coordinator;
use crate::node::{Node, Package, alive, order, stopping};
use crate::wait::{until, until_true};

const ID: &str = "score.1.2.1";

/// A package whose `[job] command` is a shell script.
fn script(coordinator: &Coordinator, script: &str) -> Package {
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
fn served(coordinator: &Coordinator, module: &str) -> Package {
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

const MODULE: &str = r#"
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
fn blob(coordinator: &Coordinator, name: &str, bytes: &[u8]) -> Piece {
    let blob = format!("blake3:{}", blake3::hash(bytes).to_hex());
    coordinator.with(|state| state.blobs.insert(blob.clone(), bytes.to_vec()));
    Piece {
        name: name.to_owned(),
        blob: blob.parse().unwrap(),
        offset: 0,
        bytes: bytes.len() as u64,
    }
}

fn task(package: &Package, input: ShardInput) -> InstanceSpec {
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

fn file(pieces: Vec<Piece>) -> ShardInput {
    ShardInput {
        folder: false,
        pieces,
    }
}

async fn stopped(coordinator: &Coordinator) -> InstanceStatus {
    coordinator.phase(ID, Phase::Stopped).await
}

fn outputs(coordinator: &Coordinator) -> Vec<(String, String, Vec<u8>)> {
    coordinator.with(|state| state.outputs.clone())
}

/// How often the script said that it begins, over all starts.
fn begins(coordinator: &Coordinator) -> usize {
    coordinator.lines(ID, "begin").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_its_input_and_leaves_its_output() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "echo begin $BERTH_JOB_INDEX $BERTH_INSTANCE\ntr a-z A-Z < \"$BERTH_JOB_INPUT\" > \"$BERTH_JOB_OUTPUT\"\n",
    );
    // Parts of one blob and another, of which a transfer breaks off.
    let mut first = blob(&coordinator, "", b"xxone\ntwo\nyy");
    (first.offset, first.bytes) = (2, 8);
    let long = "three\n".repeat(1000);
    let second = blob(&coordinator, "", long.as_bytes());
    let empty = Piece {
        bytes: 0,
        ..second.clone()
    };
    coordinator.with(|state| state.fetch_limit = Some(4000));
    coordinator.desire(
        order(1),
        &[task(&package, file(vec![first, empty, second]))],
    );
    let node = Node::running(&coordinator);
    let done = stopped(&coordinator).await;
    assert_eq!(
        (done.reason.clone(), done.start, done.address),
        (Some(Reason::Completed), 1, None)
    );
    let expected = format!("ONE\nTWO\n{}", long.to_uppercase());
    let outputs = outputs(&coordinator);
    assert_eq!(outputs.len(), 1);
    let (task, blob, bytes) = &outputs[0];
    assert_eq!(
        (task.as_str(), String::from_utf8_lossy(bytes).as_ref()),
        (ID, expected.as_str())
    );
    let output = done.output.unwrap();
    assert_eq!(
        (output.blob.to_string(), output.bytes, output.folder),
        (blob.clone(), bytes.len() as u64, false)
    );
    until_true("its line", || !coordinator.lines(ID, "begin").is_empty()).await;
    assert_eq!(coordinator.lines(ID, "begin"), [format!("begin 2 {ID}")]);
    let ranges = coordinator.with(|state| state.ranges.clone());
    assert!(
        ranges.contains(&(2, 8)) && ranges.contains(&(4000, 2000)),
        "{ranges:?}"
    );
    let phases: Vec<Phase> = coordinator.with(|state| {
        let ours = state
            .history
            .iter()
            .filter(|status| status.id.to_string() == ID);
        ours.map(|status| status.phase).collect()
    });
    assert!(!phases.contains(&Phase::Backoff), "{phases:?}");
    // Told to go, it goes, with all of its files.
    coordinator.desire(order(2), &[]);
    coordinator.forgotten(ID).await;
    assert!(!node.data().join("instances").join(ID).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_goes_in_and_a_folder_comes_out() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "cp -r \"$BERTH_JOB_INPUT\" \"$BERTH_JOB_OUTPUT\"\nln -s sub/b.txt \"$BERTH_JOB_OUTPUT/link\"\n",
    );
    let pieces = vec![
        blob(&coordinator, "a.txt", b"one"),
        blob(&coordinator, "sub/b.txt", b"two"),
        blob(&coordinator, "sub/empty", b""),
    ];
    let input = ShardInput {
        folder: true,
        pieces,
    };
    coordinator.desire(order(1), &[task(&package, input)]);
    let _node = Node::running(&coordinator);
    let done = stopped(&coordinator).await;
    assert_eq!(done.reason, Some(Reason::Completed), "{done:?}");
    assert!(done.output.unwrap().folder);
    let (_, _, archive) = outputs(&coordinator).remove(0);
    let tar = zstd::decode_all(&archive[..]).unwrap();
    let mut found = Vec::new();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        let header = entry.header();
        assert_eq!(
            (
                header.mtime().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap()
            ),
            (0, 0, 0)
        );
        found.push((entry.path().unwrap().to_string_lossy().into_owned(), text));
    }
    let expected = [
        ("a.txt", "one"),
        ("link", ""),
        ("sub/", ""),
        ("sub/b.txt", "two"),
        ("sub/empty", ""),
    ];
    assert_eq!(
        found,
        expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_posts_rows_to_the_module_and_keeps_their_order() {
    let coordinator = Coordinator::start().await;
    let package = served(&coordinator, MODULE);
    let rows: String = (0..50)
        .map(|i| format!("\"{}\"\n", "x".repeat(i)))
        .collect();
    let input = file(vec![blob(&coordinator, "", rows.as_bytes())]);
    coordinator.desire(order(1), &[task(&package, input)]);
    let _node = Node::running(&coordinator);
    let done = stopped(&coordinator).await;
    assert_eq!(done.reason, Some(Reason::Completed), "{done:?}");
    let (_, _, bytes) = outputs(&coordinator).remove(0);
    let expected: String = (0..50)
        .map(|i| format!("{{\"text\":\"{}\",\"length\":{i}}}\n", "x".repeat(i)))
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    until_true("the driver's last line", || {
        !coordinator.lines(ID, "done: 50 rows").is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_and_a_module_that_dies_are_told_apart() {
    let coordinator = Coordinator::start().await;
    let package = served(&coordinator, MODULE);
    let input = file(vec![blob(&coordinator, "", b"\"a\"\n\"b\"\n17\n")]);
    coordinator.desire(order(1), &[task(&package, input)]);
    let _node = Node::running(&coordinator);
    let refused = stopped(&coordinator).await;
    let exited = |process: &str, code| Reason::Exited {
        process: process.to_owned(),
        code,
    };
    assert_eq!(refused.reason, Some(exited("driver", 5)));
    let told = refused.last_lines.join("\n");
    assert!(
        told.contains("row 3 of")
            && told.contains("400: not a text")
            && told.contains("begins: 17"),
        "{told}"
    );
    let crash = file(vec![blob(&coordinator, "", b"\"crash\"\n")]);
    let second = InstanceSpec {
        id: "score.1.2.2".parse().unwrap(),
        ..task(&package, crash)
    };
    coordinator.desire(order(2), &[second]);
    let crashed = coordinator.phase("score.1.2.2", Phase::Stopped).await;
    assert_eq!(crashed.reason, Some(exited("module", 9)));
    assert!(
        crashed.last_lines.contains(&"goodbye".to_owned()),
        "{crashed:?}"
    );
    assert!(outputs(&coordinator).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_reported_once_with_its_code_and_last_lines() {
    let coordinator = Coordinator::start().await;
    let package = script(&coordinator, "echo begin\necho no such model >&2\nexit 7\n");
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let mut node = Node::running(&coordinator);
    let failed = stopped(&coordinator).await;
    let reason = Reason::Exited {
        process: "job".into(),
        code: 7,
    };
    assert_eq!(failed.reason, Some(reason.clone()));
    assert!(
        failed.last_lines.contains(&"no such model".to_owned()),
        "{failed:?}"
    );
    // Another agent does not try it either.
    node.kill();
    node.run();
    let hello = coordinator.hello(2).await;
    assert_eq!(
        (hello.instances[0].phase.as_str(), hello.instances[0].start),
        ("stopped", 1)
    );
    coordinator.acked(2).await;
    let again = stopped(&coordinator).await;
    assert_eq!((again.reason, again.start), (Some(reason), 1));
    until_true("its line", || begins(&coordinator) > 0).await;
    assert_eq!(begins(&coordinator), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_0_without_an_output_and_a_name_that_leads_out_are_failures() {
    let coordinator = Coordinator::start().await;
    let package = script(&coordinator, "exit 0\n");
    let evil = InstanceSpec {
        id: "evil.1.0.1".parse().unwrap(),
        ..task(
            &package,
            ShardInput {
                folder: true,
                pieces: vec![blob(&coordinator, "../../evil", b"x")],
            },
        )
    };
    coordinator.desire(order(1), &[task(&package, file(vec![])), evil]);
    let node = Node::running(&coordinator);
    let failed = stopped(&coordinator).await.reason.unwrap().to_string();
    assert!(
        failed.contains("exited with code 0 but left nothing at BERTH_JOB_OUTPUT"),
        "{failed}"
    );
    let refused = coordinator.phase("evil.1.0.1", Phase::Stopped).await;
    let told = refused.reason.unwrap().to_string();
    assert!(
        told.contains("\"../../evil\"") && refused.start == 0,
        "{told}"
    );
    assert!(!node.data().join("instances/evil").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agents_task_goes_on_and_ends_once() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "echo begin\nwhile [ ! -e \"$HOME/go\" ]; do sleep 0.05; done\necho end > \"$BERTH_JOB_OUTPUT\"\n",
    );
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let mut node = Node::running(&coordinator);
    let pid = coordinator.phase(ID, Phase::Healthy).await.pid.unwrap();
    for round in 2..=3 {
        node.kill();
        assert!(alive(pid));
        node.run();
        let hello = coordinator.hello(round).await;
        assert_eq!(
            (hello.instances[0].phase.as_str(), hello.instances[0].pid),
            ("healthy", pid)
        );
    }
    std::fs::write(node.data().join("instances").join(ID).join("work/go"), "").unwrap();
    let done = stopped(&coordinator).await;
    assert_eq!((done.reason, done.start), (Some(Reason::Completed), 1));
    assert_eq!(outputs(&coordinator).len(), 1);
    until_true("its line", || begins(&coordinator) > 0).await;
    assert_eq!(begins(&coordinator), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_between_end_and_upload_uploads_after_its_restart() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "echo begin\necho out > \"$BERTH_JOB_OUTPUT\"\n",
    );
    // Nothing gets through.
    coordinator.with(|state| state.output_limit = Some(0));
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let mut node = Node::running(&coordinator);
    let waiting = coordinator
        .status(ID, |s| s.phase == Phase::Stopping && s.reason.is_some())
        .await;
    assert!(
        waiting
            .reason
            .unwrap()
            .to_string()
            .contains("the network broke")
    );
    node.kill();
    coordinator.with(|state| state.output_limit = None);
    // This time it is taken, and the answer is lost: it is sent again.
    coordinator.with(|state| state.lose_answer = true);
    node.run();
    let done = stopped(&coordinator).await;
    assert_eq!((done.reason, done.start), (Some(Reason::Completed), 1));
    let sent = outputs(&coordinator);
    assert_eq!((sent.len(), &sent[0]), (2, &sent[1]));
    assert_eq!(done.output.unwrap().blob.to_string(), sent[0].1);
    // What was acknowledged is not sent a third time by the next agent.
    node.kill();
    node.run();
    coordinator.hello(3).await;
    coordinator.acked(3).await;
    let again = stopped(&coordinator).await;
    assert_eq!(again.reason, Some(Reason::Completed));
    assert_eq!((outputs(&coordinator).len(), begins(&coordinator)), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_away_gets_the_output_when_it_is_back() {
    let mut coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "while [ ! -e \"$HOME/go\" ]; do sleep 0.05; done\nhead -c 3000000 /dev/zero > \"$BERTH_JOB_OUTPUT\"\n",
    );
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let node = Node::running(&coordinator);
    let pid = coordinator.phase(ID, Phase::Healthy).await.pid.unwrap();
    coordinator.stop();
    std::fs::write(node.data().join("instances").join(ID).join("work/go"), "").unwrap();
    until_true("its end", || !alive(pid)).await;
    coordinator.run().await;
    let done = stopped(&coordinator).await;
    assert_eq!(done.reason, Some(Reason::Completed), "{done:?}");
    assert_eq!(outputs(&coordinator)[0].2.len(), 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_coordinator_or_the_configuration_does_not_take_is_told() {
    let coordinator = Coordinator::start().await;
    coordinator.with(|state| state.output_refusal = Some("attempt 2 is the current one".into()));
    let small = script(&coordinator, "echo out > \"$BERTH_JOB_OUTPUT\"\n");
    let large = script(
        &coordinator,
        "head -c 5000000 /dev/zero > \"$BERTH_JOB_OUTPUT\"\n",
    );
    let second = InstanceSpec {
        id: "large.1.0.1".parse().unwrap(),
        ..task(&large, file(vec![]))
    };
    coordinator.desire(order(1), &[task(&small, file(vec![])), second]);
    let _node = Node::running(&coordinator);
    let refused = stopped(&coordinator).await.reason.unwrap().to_string();
    assert!(
        refused.contains("does not take it: attempt 2 is the current one"),
        "{refused}"
    );
    let large = coordinator.phase("large.1.0.1", Phase::Stopped).await;
    let told = large.reason.unwrap().to_string();
    assert!(
        told.contains("more than 4MiB") && told.contains("max_output"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_and_a_stop_end_it_in_order() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "trap 'echo asked; exit 0' TERM\necho begin\nwhile :; do sleep 0.05; done\n",
    );
    let mut late = task(&package, file(vec![]));
    late.task.as_mut().unwrap().deadline = Some(Span::secs(2));
    let second = InstanceSpec {
        id: "other.1.0.1".parse().unwrap(),
        ..task(&package, file(vec![]))
    };
    coordinator.desire(order(1), &[late.clone(), second.clone()]);
    let mut node = Node::running(&coordinator);
    coordinator.phase(ID, Phase::Healthy).await;
    // The deadline goes on without an agent.
    node.kill();
    node.run();
    let ended = stopped(&coordinator).await;
    assert_eq!(
        ended.reason,
        Some(Reason::DeadlineExceeded { after_ms: 2000 })
    );
    assert!(ended.last_lines.contains(&"asked".to_owned()), "{ended:?}");
    coordinator.phase("other.1.0.1", Phase::Healthy).await;
    coordinator.desire(order(2), &[late, stopping(&second)]);
    let told = coordinator.phase("other.1.0.1", Phase::Stopped).await;
    assert_eq!(
        (told.reason, told.output),
        (Some(Reason::StopRequested), None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_ends_the_attempt() {
    let coordinator = Coordinator::start().await;
    let package = script(&coordinator, "echo begin\nwhile :; do sleep 0.05; done\n");
    coordinator.desire(order(1), &[task(&package, file(vec![]))]);
    let node = Node::running(&coordinator);
    coordinator.phase(ID, Phase::Healthy).await;
    let start = node.data().join("instances").join(ID).join("starts/1");
    let shim = until("the shim", || {
        berth_shim::state::State::load(&start).map_err(|error| error.to_string())
    })
    .await
    .shim
    .pid;
    let pid = rustix::process::Pid::from_raw(shim as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let lost = stopped(&coordinator).await;
    assert_eq!((lost.reason, lost.start), (Some(Reason::SupervisorLost), 1));
}
