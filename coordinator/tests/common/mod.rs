//! A real coordinator on loopback, with real TLS, for the tests of its edges.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "every test file uses another part of this"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_coordinator::config::ControlConfig;
use berth_coordinator::edge::Edge;
use berth_coordinator::pki::{Authority, VerifiedCsr};
use berth_coordinator::run::{Coordinator, RunError};
use berth_model::id::NodeName;
use berth_model::token::JoinToken;
use berth_proto::COORDINATOR_NAME;
use berth_proto::v1::agents_client::AgentsClient;
use berth_proto::v1::enrollment_client::EnrollmentClient;
use berth_proto::v1::{Facts, JoinReply, JoinRequest, Resources};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

/// Long enough for a busy machine; nothing waits for it in vain.
pub const LONG: Duration = Duration::from_secs(30);

/// A running coordinator; stopped when dropped.
pub struct Running {
    pub dir: Arc<TempDir>,
    pub address: SocketAddr,
    pub edge: Arc<Edge>,
    shutdown: tokio_util::sync::DropGuard,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ControlConfig)) -> Self {
        Self::within(Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    /// In a folder that may have been used before.
    pub async fn within(dir: Arc<TempDir>, change: impl FnOnce(&mut ControlConfig)) -> Self {
        // Another test of this process may have done so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = ControlConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: dir.path().join("coordinator"),
            ..ControlConfig::default()
        };
        change(&mut config);
        let coordinator = Coordinator::start(config).await.unwrap();
        let shutdown = CancellationToken::new();
        Self {
            dir,
            address: coordinator.address(),
            edge: Arc::clone(coordinator.edge()),
            task: tokio::spawn(coordinator.run(shutdown.clone())),
            shutdown: shutdown.drop_guard(),
        }
    }

    /// Ends it in order.
    pub async fn stop(self) {
        self.shutdown.disarm().cancel();
        // It waits for the last handle.
        drop(self.edge);
        self.task.await.unwrap().unwrap();
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("coordinator")
    }

    pub fn token(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.data().join(format!("{name}.token"))).unwrap();
        text.trim().to_owned()
    }

    pub fn ca(&self) -> String {
        std::fs::read_to_string(self.data().join("ca.crt")).unwrap()
    }

    /// A REST client that trusts the fleet's authority.
    pub fn client(&self) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(self.ca().as_bytes()).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([ca])
            .timeout(LONG)
            .build()
            .unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// A request of the admin's.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client()
            .request(method.parse().unwrap(), self.url(path))
            .bearer_auth(self.token("admin"))
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        answer.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.request("POST", path).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// A connection that shows the given certificate, or none.
    pub async fn channel(&self, identity: Option<(&str, &KeyPair)>) -> Result<Channel, String> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.ca()))
            .domain_name(COORDINATOR_NAME);
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key.serialize_pem()));
        }
        Endpoint::from_shared(format!("https://{}", self.address))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
            .map_err(|error| format!("{error:?}"))
    }

    /// A new join token.
    pub async fn join_token(&self, body: &Value) -> JoinToken {
        let (status, token) = self.post("/v1/tokens", body).await;
        assert_eq!(status, 201, "{token}");
        token["token"].as_str().unwrap().parse().unwrap()
    }

    pub async fn join(
        &self,
        token: &JoinToken,
        name: &str,
        key: &KeyPair,
    ) -> Result<JoinReply, Status> {
        let request = JoinRequest {
            token_id: token.id.clone(),
            token_secret: token.secret.clone(),
            csr: csr(key).into(),
            name: name.to_owned(),
            facts: Some(facts(name)),
            ..Default::default()
        };
        let channel = self.channel(None).await.unwrap();
        let answer = EnrollmentClient::new(channel).join(request).await?;
        Ok(answer.into_inner())
    }

    /// A joined node.
    pub async fn node(&self, name: &str) -> Node {
        let token = self.join_token(&json!({})).await;
        let key = KeyPair::generate().unwrap();
        let reply = self.join(&token, name, &key).await.unwrap();
        Node {
            name: name.to_owned(),
            key,
            certificate: reply.certificate,
        }
    }

    pub async fn agents(&self, node: &Node) -> AgentsClient<Channel> {
        let channel = self.channel(Some((&node.certificate, &node.key))).await;
        AgentsClient::new(channel.unwrap())
    }

    /// The coordinator's own authority, to sign what it would not.
    pub fn authority(&self) -> Authority {
        Authority::load_or_create(&self.data()).unwrap()
    }

    /// Builds a package, uploads and registers it: the model version as answered.
    pub async fn push(&self, name: &str, version: &str) -> Value {
        let archive = package(self.dir.path(), name, version);
        let digest = self.upload(&archive).await;
        let (status, model) = self.post("/v1/models", &json!({"blob": digest})).await;
        assert_eq!(status, 201, "{model}");
        model
    }

    /// Uploads bytes in one piece: their digest.
    pub async fn upload(&self, bytes: &[u8]) -> String {
        let digest = format!("blake3:{}", blake3::hash(bytes).to_hex());
        let answer = self
            .request("PATCH", &format!("/v1/blobs/{digest}"))
            .header("upload-offset", 0)
            .header("upload-length", bytes.len())
            .body(bytes.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        digest
    }
}

/// A node that has joined.
pub struct Node {
    pub name: String,
    pub key: KeyPair,
    pub certificate: String,
}

pub fn csr(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::new(vec!["ignored".to_owned()]).unwrap();
    params.serialize_request(key).unwrap().der().to_vec()
}

pub fn facts(name: &str) -> Facts {
    Facts {
        kind: "virtual".to_owned(),
        exclusive: true,
        capacity: Some(Resources {
            cpu_millis: 4_000,
            memory_bytes: 8 << 30,
            gpus: 0,
            disk_bytes: 100 << 30,
        }),
        runtimes: vec!["process".to_owned()],
        hostname: name.to_owned(),
        ..Facts::default()
    }
}

/// A certificate for a node's key, signed by the given authority.
pub fn sign(authority: &Authority, name: &str, key: &KeyPair, life: Duration) -> String {
    let request = VerifiedCsr::parse(&csr(key)).unwrap();
    let name = NodeName::new(name).unwrap();
    authority
        .sign_node(&request, name.as_str(), life)
        .unwrap()
        .chain_pem
}

/// The archive of a small package.
pub fn package(scratch: &Path, name: &str, version: &str) -> Vec<u8> {
    let folder = tempfile::tempdir_in(scratch).unwrap();
    let source = folder.path().join("package");
    berth_package::init(
        &source,
        &name.parse().unwrap(),
        berth_package::Template::Plain,
    )
    .unwrap();
    let manifest = source.join("berth.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let old = text
        .lines()
        .find(|line| line.trim_start().starts_with("version"))
        .unwrap();
    let changed = text.replacen(old, &format!("version = \"{version}\""), 1);
    std::fs::write(&manifest, changed).unwrap();
    let archive = folder.path().join("package.tar.zst");
    berth_package::build(&source, &archive).unwrap();
    std::fs::read(archive).unwrap()
}

pub fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.unwrap_err().code()
}
