//! A namespace of the test's own, with a service account that has exactly the rights of the example.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_kubernetes::{Access, Base, Cluster, ClusterConfig, Picture, Shape, Verdict, Work};
use berth_model::resources::Resources;
use berth_model::time::Span;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tempfile::TempDir;

/// A module that runs until it is told to stop. Process 1 of a container must ask for the signal.
pub(crate) const FOREVER: &str = "trap 'exit 143' TERM; echo ready; sleep 600 & wait";
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct World {
    pub(crate) admin: Client,
    pub(crate) namespace: String,
    pub(crate) server: SocketAddr,
    pub(crate) dir: TempDir,
    image: String,
    ca: String,
    token: String,
}

fn skip(why: &str) {
    berth_skipped::skip("kubernetes", why);
}

/// The folder of the cluster that `tests/platform/kubernetes.sh` has started, if it is up.
pub(crate) fn run_folder() -> Option<PathBuf> {
    let cache = std::env::var("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|_| std::env::var("HOME").map(|home| Path::new(&home).join(".cache")))
        .ok()?;
    let run = cache.join("berth/k8s/run");
    // What is left of one that was ended hard is none.
    let up = run.join("admin.kubeconfig").exists() && super::restart::api_server_runs(&run);
    up.then_some(run)
}

fn kubeconfig() -> Option<PathBuf> {
    match std::env::var("BERTH_TEST_KUBECONFIG") {
        Ok(path) => Some(path.into()),
        Err(_) => run_folder().map(|run| run.join("admin.kubeconfig")),
    }
}

/// Runs a test in a world of its own, which is removed afterwards, however the test ends.
pub(crate) fn with_world<F: Future<Output = Result<()>>>(
    test: impl FnOnce(Arc<World>) -> F,
) -> Result<()> {
    let Some(path) = kubeconfig() else {
        skip(
            "no cluster: start one with tests/platform/kubernetes.sh, or set BERTH_TEST_KUBECONFIG",
        );
        return Ok(());
    };
    let image = match super::image::ready(&path) {
        Ok(image) => image,
        Err(why) => {
            skip(&why);
            return Ok(());
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let world = Arc::new(World::make(&path, image).await?);
        let (admin, namespace) = (world.admin.clone(), world.namespace.clone());
        // Nothing may be left behind by a test that fails.
        let done = std::panic::AssertUnwindSafe(test(world));
        let done = futures_util::FutureExt::catch_unwind(done).await;
        let all = Api::<Namespace>::all(admin);
        all.delete(&namespace, &DeleteParams::default()).await?;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn documents(namespace: &str) -> Result<Vec<serde_json::Value>> {
    use serde::Deserialize;
    let text = include_str!("../../../../examples/kubernetes/rbac.yaml");
    serde_norway::Deserializer::from_str(text)
        .map(|document| {
            let mut value = serde_json::Value::deserialize(document)?;
            if value["kind"] == "Namespace" {
                value["metadata"]["name"] = namespace.into();
            } else {
                value["metadata"]["namespace"] = namespace.into();
            }
            if let Some(subjects) = value.get_mut("subjects") {
                subjects[0]["namespace"] = namespace.into();
            }
            Ok(value)
        })
        .collect()
}

impl World {
    async fn make(path: &Path, image: String) -> Result<Self> {
        let file = Kubeconfig::read_from(path)?;
        let ca = file.clusters[0]
            .cluster
            .as_ref()
            .and_then(|c| c.certificate_authority_data.clone())
            .context("certificate-authority-data")?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let server = config
            .cluster_url
            .authority()
            .context("an address")?
            .as_str()
            .parse()
            .context("the API server's address must be numeric")?;
        let admin = Client::try_from(config)?;
        let namespace = format!("berth-t-{:08x}", rand::random::<u32>());
        for value in documents(&namespace)? {
            let params = PostParams::default();
            match value["kind"].as_str() {
                Some("Namespace") => {
                    let all = Api::<Namespace>::all(admin.clone());
                    all.create(&params, &serde_json::from_value(value)?).await?;
                }
                Some("ServiceAccount") => {
                    let all = Api::<ServiceAccount>::namespaced(admin.clone(), &namespace);
                    all.create(&params, &serde_json::from_value(value)?).await?;
                }
                Some("Role") => {
                    let all = Api::<Role>::namespaced(admin.clone(), &namespace);
                    all.create(&params, &serde_json::from_value(value)?).await?;
                }
                Some("RoleBinding") => {
                    let all = Api::<RoleBinding>::namespaced(admin.clone(), &namespace);
                    all.create(&params, &serde_json::from_value(value)?).await?;
                }
                other => bail!("rbac.yaml has a {other:?}"),
            }
        }
        let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), &namespace);
        let request: TokenRequest = serde_json::from_value(
            serde_json::json!({"spec": {"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 7200}}),
        )?;
        let request = accounts
            .create_token_request("berth", &PostParams::default(), &request)
            .await?;
        // Old clusters refuse Pods until the account that they run as has its token.
        until("the default service account", || async {
            let account = accounts.get_opt("default").await?;
            Ok(account.is_some_and(|a| a.secrets.is_some()).then_some(()))
        })
        .await?;
        Ok(Self {
            admin,
            namespace,
            server,
            dir: tempfile::tempdir()?,
            image,
            ca,
            token: request.status.context("a token")?.token,
        })
    }

    pub(crate) fn kubeconfig(
        &self,
        name: &str,
        server: SocketAddr,
        token: &str,
    ) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: \"https://{server}\", certificate-authority-data: {}}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\n",
            self.ca
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A configuration with the example's rights. Pods' init containers run `prepare`, their modules `run`.
    pub(crate) fn config(
        &self,
        server: SocketAddr,
        prepare: &str,
        run: &str,
    ) -> Result<ClusterConfig> {
        let path = self.kubeconfig(
            &format!("kubeconfig-{}", server.port()),
            server,
            &self.token,
        )?;
        let access = Access::Kubeconfig {
            path,
            context: None,
        };
        let endpoint = format!("{prepare};;{run}");
        let mut config = ClusterConfig::new("prod".parse()?, "fleet-1", access, endpoint);
        config.namespace.clone_from(&self.namespace);
        config.images.berth.clone_from(&self.image);
        config.images.binary.clone_from(&self.image);
        Ok(config)
    }

    /// A cluster whose modules run these commands.
    pub(crate) fn cluster(&self, prepare: &str, run: &str) -> Result<Cluster> {
        Ok(Cluster::start(self.config(self.server, prepare, run)?))
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    pub(crate) fn jobs(&self) -> Api<k8s_openapi::api::batch::v1::Job> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }
}

pub(crate) fn instance(id: &str) -> Work {
    work(&format!("instance:{id}"), Shape::Once)
}

pub(crate) fn work(id: &str, shape: Shape) -> Work {
    Work {
        id: id.parse().unwrap(),
        shape,
        image: None,
        base: Base::Binary,
        resources: Resources {
            cpu_millis: 10,
            memory_bytes: 32 << 20,
            ..Resources::default()
        },
        stop_grace: Span::secs(1),
        token: "berth1.hash.id.secret".to_owned(),
    }
}

/// Asks until there is an answer.
pub(crate) async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        if tokio::time::Instant::now() > end {
            bail!("waited in vain for {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for a picture.
pub(crate) async fn picture(
    cluster: &Cluster,
    what: &str,
    wanted: impl FnMut(&Arc<Picture>) -> bool,
) -> Result<Arc<Picture>> {
    let mut pictures = cluster.picture();
    let found = tokio::time::timeout(PATIENCE, pictures.wait_for(wanted)).await;
    let found = match found {
        Ok(found) => Arc::clone(&*found?),
        Err(_) => bail!(
            "waited in vain for {what}: {:#?}",
            *cluster.picture().borrow()
        ),
    };
    Ok(found)
}

/// Waits until a verdict on a Job is what is wanted.
pub(crate) async fn verdict(
    cluster: &Cluster,
    name: &str,
    what: &str,
    mut wanted: impl FnMut(&Verdict) -> bool,
) -> Result<Verdict> {
    let picture = picture(cluster, what, |p| {
        p.verdict(name).as_ref().is_some_and(&mut wanted)
    })
    .await?;
    picture.verdict(name).context("just seen")
}
