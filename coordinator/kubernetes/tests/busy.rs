//! An API server that has too much to do, or fails: what a real one answers then, byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_kubernetes::{Access, Base, Class, Cluster, ClusterConfig, Error, Outcome, Shape, Work};
use berth_model::resources::Resources;
use berth_model::time::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the API server's own limit on requests in flight says; it is no JSON.
const TOO_MANY: &str = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\
                        Content-Length: 46\r\n\r\nToo many requests, please try again later.\n\n\n\n";
const CONFLICT: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Operation cannot be fulfilled on resourcequotas \"q\": the object has been modified; please apply your changes to the latest version and try again","reason":"Conflict","code":409}"#;
const ETCD: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"etcdserver: request timed out","reason":"InternalError","code":500}"#;
const MADE: &str = r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"berth-web-1-0-1","uid":"u-1"},"spec":{"template":{"spec":{"containers":[]}}}}"#;

fn answer(code: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[derive(Clone)]
struct Server {
    posts: Arc<Mutex<Vec<Instant>>>,
    answers: Arc<Vec<String>>,
}

impl Server {
    async fn serve(self, mut stream: TcpStream) -> Result<()> {
        let mut seen = Vec::new();
        loop {
            let mut buffer = [0; 16384];
            let n = stream.read(&mut buffer).await?;
            ensure!(n > 0, "closed");
            seen.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&seen).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.lines().find_map(|l| {
                l.to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            });
            if body.len() < length.map_or(0, |l| l.parse().unwrap()) {
                continue;
            }
            if head.starts_with("POST") {
                let n = {
                    let mut posts = self.posts.lock().unwrap();
                    posts.push(Instant::now());
                    posts.len() - 1
                };
                let last = self.answers.last().context("answers")?;
                stream
                    .write_all(self.answers.get(n).unwrap_or(last).as_bytes())
                    .await?;
            } else {
                stream.write_all(answer(503, ETCD).as_bytes()).await?;
            }
            seen.clear();
        }
    }
}

async fn world(answers: &[String]) -> Result<(Cluster, Server, tempfile::TempDir)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server {
        posts: Arc::default(),
        answers: Arc::new(answers.to_vec()),
    };
    let serving = server.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serving.clone().serve(stream));
        }
    });
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("kubeconfig");
    std::fs::write(
        &path,
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: \"http://{address}\"}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        ),
    )?;
    let access = Access::Kubeconfig {
        path,
        context: None,
    };
    let config = ClusterConfig::new("busy".parse()?, "f", access, "127.0.0.1:1");
    Ok((Cluster::start(config), server, dir))
}

fn web() -> Work {
    Work {
        id: "instance:web.1.0.1".parse().unwrap(),
        shape: Shape::Once,
        image: None,
        base: Base::Binary,
        resources: Resources::default(),
        stop_grace: Span::secs(1),
        token: "t".to_owned(),
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_and_not_before_the_server_wants_it() -> Result<()> {
    let answers = [
        TOO_MANY.to_owned(),
        answer(500, ETCD),
        answer(409, CONFLICT),
        answer(201, MADE),
    ];
    let (cluster, server, _dir) = world(&answers).await?;
    let made = cluster.create(&web()).await?;
    ensure!(made.uid == "u-1" && !made.adopted);
    let posts = server.posts.lock().unwrap().clone();
    ensure!(posts.len() == 4, "{}", posts.len());
    ensure!(
        posts[1] - posts[0] >= Duration::from_millis(990),
        "{:?}",
        posts[1] - posts[0]
    );
    let counted = |outcome| {
        let of = |r: &&berth_kubernetes::Requests| r.verb == "create" && r.outcome == outcome;
        cluster.requests().iter().find(of).map_or(0, |r| r.count)
    };
    ensure!(counted(Outcome::Throttled) == 1 && counted(Outcome::Failed) == 1);
    ensure!(counted(Outcome::Refused) == 1 && counted(Outcome::Ok) == 1);
    Ok(())
}

#[tokio::test]
async fn a_server_that_only_fails_is_held_and_nothing_is_concluded() -> Result<()> {
    let (cluster, _server, _dir) = world(&[answer(500, ETCD)]).await?;
    let mut picture = cluster.picture();
    let state = picture
        .wait_for(|p| {
            p.state
                .to_string()
                .contains("etcdserver: request timed out")
        })
        .await?
        .clone();
    ensure!(!state.state.is_reachable() && !state.complete);
    ensure!(state.verdict("berth-web-1-0-1").is_none());
    Ok(())
}

#[tokio::test]
async fn without_a_server_a_command_says_so_soon() -> Result<()> {
    let (cluster, _server, dir) = world(&[]).await?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let path = dir.path().join("nobody");
    let text = std::fs::read_to_string(dir.path().join("kubeconfig"))?;
    let at = text.find("http://").context("a server")?;
    let end = at + text[at..].find('"').context("an end")?;
    std::fs::write(
        &path,
        format!("{}http://{nobody}{}", &text[..at], &text[end..]),
    )?;
    let mut config = cluster.config().clone();
    config.access = Access::Kubeconfig {
        path,
        context: None,
    };
    let begun = Instant::now();
    let error = Cluster::start(config).create(&web()).await;
    ensure!(
        matches!(&error, Err(Error::Unreachable { why, .. }) if why.contains("refused")),
        "{error:?}"
    );
    ensure!(error.is_err_and(|e| e.class() == Class::Hold));
    ensure!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    Ok(())
}

#[tokio::test]
async fn a_coordinator_outside_of_any_cluster_is_told_so() -> Result<()> {
    let config = ClusterConfig::new("in".parse()?, "f", Access::InCluster, "127.0.0.1:1");
    let error = Cluster::start(config).create(&web()).await;
    ensure!(
        matches!(&error, Err(Error::NotInCluster { .. })),
        "{error:?}"
    );
    ensure!(error.is_err_and(
        |e| e.class() == Class::Configuration && e.to_string().contains("name a kubeconfig")
    ));
    Ok(())
}
