//! The admin API and the gateway, as programs use them.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use berth_model::api::{Deploy, List, NodeView, ServiceView, StatusView};
use berth_model::event::Event;
use berth_model::record::LogLine;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;

/// A client with the admin's token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    api: String,
    token: String,
    /// `http://127.0.0.1:PORT` of the gateway.
    pub gateway: String,
}

impl Client {
    /// For the coordinator at `api` with its data folder (for the CA and the token).
    pub fn new(api: SocketAddr, data: &Path, gateway: SocketAddr) -> Result<Self> {
        // A second installation in one process is refused and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = std::fs::read(data.join("ca.crt")).context("no CA certificate")?;
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca)?])
            .resolve("coordinator.berth.internal", api)
            .build()?;
        let token = std::fs::read_to_string(data.join("admin.token")).context("no admin token")?;
        Ok(Self {
            http,
            api: format!("https://coordinator.berth.internal:{}", api.port()),
            token: token.trim().to_owned(),
            gateway: format!("http://{gateway}"),
        })
    }

    /// One request to the admin API; the answer's status and body.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<(StatusCode, String)> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.api))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let response = request.send().await?;
        Ok((response.status(), response.text().await?))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<T> {
        let (status, text) = self.raw(method.clone(), path, body).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: {text}"))
    }

    /// Deploys; an answer means it is on disk.
    pub async fn deploy(&self, model: &str, replicas: Option<u32>) -> Result<ServiceView> {
        let deploy = Deploy {
            model: model.to_owned(),
            replicas,
            ..Deploy::default()
        };
        self.ask(
            Method::POST,
            "/v1/services",
            Some(serde_json::to_string(&deploy)?),
        )
        .await
    }

    /// Scales.
    pub async fn scale(&self, service: &str, replicas: u32) -> Result<ServiceView> {
        let body = format!("{{\"replicas\":{replicas}}}");
        self.ask(
            Method::POST,
            &format!("/v1/services/{service}/scale"),
            Some(body),
        )
        .await
    }

    /// Deletes.
    pub async fn delete(&self, service: &str) -> Result<ServiceView> {
        self.ask(Method::DELETE, &format!("/v1/services/{service}"), None)
            .await
    }

    /// One service.
    pub async fn service(&self, name: &str) -> Result<ServiceView> {
        self.ask(Method::GET, &format!("/v1/services/{name}"), None)
            .await
    }

    /// All services.
    pub async fn services(&self) -> Result<Vec<ServiceView>> {
        Ok(self
            .ask::<List<ServiceView>>(Method::GET, "/v1/services", None)
            .await?
            .items)
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeView>> {
        Ok(self
            .ask::<List<NodeView>>(Method::GET, "/v1/nodes", None)
            .await?
            .items)
    }

    /// What is wrong?
    pub async fn status(&self) -> Result<StatusView> {
        self.ask(Method::GET, "/v1/status", None).await
    }

    /// All events.
    pub async fn events(&self) -> Result<Vec<Event>> {
        Ok(self
            .ask::<List<Event>>(Method::GET, "/v1/events", None)
            .await?
            .items)
    }

    /// A join token.
    pub async fn token(&self) -> Result<String> {
        let view: berth_model::api::TokenView = self
            .ask(Method::POST, "/v1/tokens", Some("{\"uses\":0}".to_owned()))
            .await?;
        Ok(view.token)
    }

    /// All log lines of a service that are on the coordinator's disk.
    pub async fn logs(&self, service: &str) -> Result<Vec<LogLine>> {
        let (status, text) = self
            .raw(Method::GET, &format!("/v1/logs?service={service}"), None)
            .await?;
        if !status.is_success() {
            bail!("logs: {status}: {text}");
        }
        text.lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(str::trim)
            .filter(|data| data.starts_with('{') && data.contains("time_nanos"))
            .map(|data| serde_json::from_str(data).with_context(|| data.to_owned()))
            .collect()
    }

    /// Posts a prediction through the gateway; status, `berth-instance`, body.
    pub async fn predict(
        &self,
        service: &str,
        request: u64,
    ) -> Result<(StatusCode, String, String)> {
        let response = self
            .http
            .post(format!("{}/v1/models/{service}:predict", self.gateway))
            .body(format!("{{\"instances\":[1],\"request\":{request}}}"))
            .send()
            .await?;
        let instance = response
            .headers()
            .get("berth-instance")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        Ok((response.status(), instance, response.text().await?))
    }
}
