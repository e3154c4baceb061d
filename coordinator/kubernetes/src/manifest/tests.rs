use berth_model::time::Span;

use super::*;
use crate::config::{Access, ClusterConfig};
use crate::work::{Base, Shape, Work};

fn cluster() -> ClusterConfig {
    let access = Access::Kubeconfig {
        path: "/etc/berth/kubeconfig".into(),
        context: None,
    };
    let mut cluster =
        ClusterConfig::new("prod".parse().unwrap(), "fleet-1", access, "10.0.0.5:7450");
    cluster.images.berth = "registry.example/berth:1".to_owned();
    cluster.images.python = "registry.example/python:3.12".to_owned();
    cluster
}

fn work(id: &str, shape: Shape) -> Work {
    Work {
        id: id.parse().unwrap(),
        shape,
        image: None,
        base: Base::Python,
        resources: berth_model::resources::Resources {
            cpu_millis: 500,
            memory_bytes: 256 << 20,
            gpus: 1,
            disk_bytes: 0,
        },
        stop_grace: Span::millis(1500),
        token: "berth1.hash.id.secret".to_owned(),
    }
}

/// With `BERTH_GOLDEN=write` it is written anew; look at the difference before you commit it.
fn is_golden(name: &str, job: &Job) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/manifest/golden")
        .join(name);
    // Through JSON, as it goes over the wire.
    let value = serde_json::to_value(job).unwrap();
    let text = serde_norway::to_string(&value).unwrap();
    if std::env::var_os("BERTH_GOLDEN").is_some_and(|v| v == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
}

#[test]
fn an_instance_is_a_job_of_one_pod_that_is_never_tried_again() {
    is_golden(
        "instance.yaml",
        &job(&work("instance:web.1.0.3", Shape::Once), &cluster()),
    );
}

#[test]
fn a_job_is_counted_and_retried_by_kubernetes() {
    let shape = Shape::Counted {
        completions: 4,
        parallelism: 2,
        retries: 3,
        deadline: Some(Span::millis(90_001)),
    };
    let mut work = work("job:scores@1700000000000", shape);
    work.image = Some("registry.example/scorer:7".to_owned());
    let mut cluster = cluster();
    cluster.service_account = Some("berth-pods".to_owned());
    cluster.image_pull_secrets = vec!["registry".to_owned()];
    cluster.node_selector = [("disk".to_owned(), "ssd".to_owned())].into();
    cluster.run_as = None;
    cluster.defaults.disk_bytes = 1 << 30;
    cluster.defaults.cpu_millis = 9999;
    is_golden("job.yaml", &job(&work, &cluster));
}

/// Every rule of the Pod security standard "restricted" that a Pod of ours could break.
#[test]
fn pods_keep_to_the_restricted_standard() {
    let job = job(&work("instance:web.1.0.3", Shape::Once), &cluster());
    let pod = job.spec.unwrap().template.spec.unwrap();
    let context = pod.security_context.unwrap();
    assert_eq!(context.run_as_non_root, Some(true));
    assert_ne!(context.run_as_user, Some(0));
    assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
    assert!(pod.host_network.is_none() && pod.host_pid.is_none() && pod.host_ipc.is_none());
    assert!(pod.volumes.unwrap().iter().all(|v| v.empty_dir.is_some()));
    assert_eq!(pod.automount_service_account_token, Some(false));
    let init = pod.init_containers.unwrap();
    let token = |c: &k8s_openapi::api::core::v1::Container| {
        c.env.iter().flatten().any(|e| e.name == "BERTH_POD_TOKEN")
    };
    assert!(token(&init[0]) && !token(&pod.containers[0]));
    for container in init.into_iter().chain(pod.containers) {
        let context = container.security_context.unwrap();
        assert_eq!(context.allow_privilege_escalation, Some(false));
        assert_eq!(context.read_only_root_filesystem, Some(true));
        let capabilities = context.capabilities.unwrap();
        assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
        assert!(capabilities.add.is_none() && context.privileged.is_none());
        assert!(container.ports.is_none(), "no host ports");
    }
}
