//! The admin API over TLS, always verified against the fleet's own CA.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context as _, Result};
use berth_model::problem::Problem;
use reqwest::{Method, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;

/// Every coordinator certificate carries this name, whatever the address that is dialled.
const NAME: &str = "coordinator.berth.internal";

/// A client of one coordinator.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
    authority: String,
}

impl Client {
    /// From the context in use.
    pub(crate) fn from_context() -> Result<Self> {
        Self::new(crate::context::load()?)
    }

    /// For a context.
    pub(crate) fn new(context: Context) -> Result<Self> {
        let address = resolve(&context.authority)?;
        let tls = tls(&context.ca).context("the CA file is not a PEM certificate")?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .resolve(NAME, address)
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .context("cannot set up TLS")?;
        Ok(Self {
            http,
            base: format!("https://{NAME}:{}", address.port()),
            token: context.token,
            authority: context.authority,
        })
    }

    /// A request that is not sent yet.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }

    /// Sends a request; an answer that is no success becomes the [`Problem`] it carries.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response> {
        let response = request.send().await.with_context(|| {
            format!(
                "the coordinator at {} cannot be reached; does it run, and is this its address?",
                self.authority
            )
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let problem = serde_json::from_str::<Problem>(&text).unwrap_or_else(|_| {
            Problem::new(
                status.as_u16(),
                "unknown",
                "Failed",
                format!("the coordinator answered {status}: {text}"),
            )
        });
        Err(problem.into())
    }

    /// GET, answered with JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(self.request(Method::GET, path)).await
    }

    /// POST of JSON, answered with JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// POST that says all by its path, answered with JSON.
    pub(crate) async fn tell<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(self.request(Method::POST, path)).await
    }

    /// DELETE, answered with JSON.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(self.request(Method::DELETE, path)).await
    }

    async fn json<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        let response = self.send(request.timeout(Duration::from_secs(120))).await?;
        response
            .json()
            .await
            .context("the coordinator's answer is not what this version expects")
    }

    /// The HTTP client itself, for the gateway.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }
}

/// Trusts the fleet's CA, whatever the clocks here and there say.
fn tls(ca: &[u8]) -> Result<rustls::ClientConfig> {
    let cas: Vec<_> = CertificateDer::pem_slice_iter(ca).collect::<Result<_, _>>()?;
    anyhow::ensure!(!cas.is_empty(), "there is no certificate in it");
    let mut tls = berth_trust::client(&cas)?.with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn resolve(authority: &str) -> Result<SocketAddr> {
    let found = authority
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {authority}"))?;
    found
        .into_iter()
        .next()
        .with_context(|| format!("{authority} has no address"))
}
