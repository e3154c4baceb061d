//! From configuration to a client: kubeconfigs as people have them, with what is wrong said in their terms.

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use kube::client::ClientBuilder;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use x509_parser::pem::Pem;

use crate::config::{Access, ClusterConfig};
use crate::error::Error;
use crate::meter::Meter;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A connection that is silent for longer is dead: a watch is ended by the API server before.
const READ_WITHIN: Duration = Duration::from_secs(75);

/// A client, and the address that it talks to.
pub(crate) async fn client(
    cluster: &ClusterConfig,
    meter: &Meter,
    now: SystemTime,
) -> Result<(Client, String), Error> {
    let mut config = match &cluster.access {
        Access::InCluster => Config::incluster().map_err(|error| Error::NotInCluster {
            why: error.to_string(),
        })?,
        Access::Kubeconfig { path, context } => from_file(path, context.clone(), now).await?,
    };
    config.default_namespace.clone_from(&cluster.namespace);
    config.connect_timeout = Some(CONNECT_WITHIN);
    config.read_timeout = Some(READ_WITHIN);
    // One place decides about trying again: `api`.
    config.default_retry = false;
    let server = config.cluster_url.to_string();
    let server = server.trim_end_matches('/').to_owned();
    let unusable = |error: kube::Error| match &cluster.access {
        Access::Kubeconfig { path, .. } => kubeconfig(path, error.to_string()),
        Access::InCluster => Error::NotInCluster {
            why: error.to_string(),
        },
    };
    let builder = ClientBuilder::try_from(config).map_err(unusable)?;
    Ok((builder.with_layer(meter).build(), server))
}

fn kubeconfig(path: &Path, why: impl Into<String>) -> Error {
    Error::Kubeconfig {
        path: path.to_owned(),
        why: why.into(),
    }
}

async fn from_file(path: &Path, context: Option<String>, now: SystemTime) -> Result<Config, Error> {
    let file = read(path).await?;
    let known: Vec<&str> = file.contexts.iter().map(|c| c.name.as_str()).collect();
    let known = if known.is_empty() {
        "it has no contexts".to_owned()
    } else {
        format!("its contexts: {}", known.join(", "))
    };
    let options = KubeConfigOptions {
        context: context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(file.clone(), &options)
        .await
        .map_err(|error| {
            let why = match error {
                KubeconfigError::CurrentContextNotSet => {
                    format!("it has no current-context; set `context` in [[cluster]] ({known})")
                }
                KubeconfigError::LoadContext(name) => {
                    format!("there is no context {name:?} in it; {known}")
                }
                KubeconfigError::LoadClusterOfContext(name) => {
                    format!("its context names cluster {name:?}, which is not in it")
                }
                other => other.to_string(),
            };
            kubeconfig(path, why)
        })?;
    let context = context.or_else(|| file.current_context.clone());
    let user = file
        .contexts
        .iter()
        .find(|c| Some(&c.name) == context.as_ref())
        .and_then(|c| c.context.as_ref()?.user.clone())
        .unwrap_or_default();
    check_certificate(path, &user, &config.auth_info, now)?;
    Ok(config)
}

async fn read(path: &Path) -> Result<Kubeconfig, Error> {
    if let Err(error) = tokio::fs::metadata(path).await {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "the file does not exist; set `kubeconfig` in [[cluster]] to one that does"
                    .to_owned()
            }
            _ => error.to_string(),
        };
        return Err(kubeconfig(path, why));
    }
    let at = path.to_owned();
    // Reads the file and resolves the paths in it against its folder.
    let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(at)).await;
    match read {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(KubeconfigError::ReadConfig(error, _))) => Err(kubeconfig(path, error.to_string())),
        Ok(Err(error)) => Err(kubeconfig(path, error.to_string())),
        Err(_) => Err(Error::Closed),
    }
}

/// An expired certificate is only answered with "Unauthorized": better to see it here.
fn check_certificate(
    path: &Path,
    user: &str,
    auth: &AuthInfo,
    now: SystemTime,
) -> Result<(), Error> {
    let pem = match (&auth.client_certificate_data, &auth.client_certificate) {
        (Some(data), _) => base64::engine::general_purpose::STANDARD
            .decode(data.trim())
            .map_err(|e| kubeconfig(path, format!("client-certificate-data: {e}")))?,
        (None, Some(file)) => std::fs::read(file)
            .map_err(|e| kubeconfig(path, format!("client-certificate {file}: {e}")))?,
        (None, None) => return Ok(()),
    };
    let wrong =
        |e: String| kubeconfig(path, format!("the client certificate is not readable: {e}"));
    let Some(pem) = Pem::iter_from_buffer(&pem).next() else {
        return Err(wrong("there is none in it".to_owned()));
    };
    let pem = pem.map_err(|e| wrong(e.to_string()))?;
    let certificate = pem.parse_x509().map_err(|e| wrong(e.to_string()))?;
    let until = certificate.validity().not_after;
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    if until.timestamp() < now {
        return Err(Error::CertificateExpired {
            path: path.to_owned(),
            user: user.to_owned(),
            on: until.to_string(),
        });
    }
    Ok(())
}
