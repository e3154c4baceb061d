//! Kubeconfigs that are wrong, each in its way.

use anyhow::{Result, ensure};
use berth_kubernetes::{Access, Class, Cluster, ClusterState, Error};

use super::world::{FOREVER, World, instance, picture, with_world};

async fn why(cluster: &Cluster) -> Result<Error> {
    let seen = picture(cluster, "a reason", |p| {
        matches!(p.state, ClusterState::Unreachable { .. })
    })
    .await?;
    match &seen.state {
        ClusterState::Unreachable { why, .. } => Ok(why.clone()),
        other => anyhow::bail!("{other}"),
    }
}

fn with(world: &World, name: &str, text: &str) -> Result<Cluster> {
    let path = world.dir.path().join(name);
    std::fs::write(&path, text)?;
    let mut config = world.config(world.server, "true", FOREVER)?;
    config.access = Access::Kubeconfig {
        path,
        context: Some("c".to_owned()),
    };
    Ok(Cluster::start(config))
}

#[test]
fn what_is_wrong_with_a_kubeconfig_is_said() -> Result<()> {
    with_world(|world| async move {
        let good =
            std::fs::read_to_string(world.kubeconfig("good", world.server, world.token())?)?;
        let cases = [
            ("nonsense", "a: [".to_owned(), "parse"),
            (
                "no-context",
                good.replace("name: c,", "name: other,"),
                "its contexts: other",
            ),
            (
                "no-cluster",
                good.replace("cluster: k,", "cluster: z,"),
                "names cluster \"z\"",
            ),
            ("no-server", good.replace("server:", "proxy-url:"), "url"),
        ];
        for (name, text, words) in cases {
            let cluster = with(&world, name, &text)?;
            let error = why(&cluster).await?;
            ensure!(
                matches!(error, Error::Kubeconfig { .. }) && error.class() == Class::Configuration,
                "{error:?}"
            );
            ensure!(error.to_string().contains(words), "{name}: {error}");
            let refused = cluster.create(&instance("web.1.0.1")).await;
            ensure!(
                matches!(refused, Err(Error::Kubeconfig { .. })),
                "{refused:?}"
            );
        }
        let stranger = with(&world, "stranger", &good.replace(world.token(), "nobody"))?;
        let error = why(&stranger).await?;
        ensure!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
        Ok(())
    })
}

#[test]
fn a_kubeconfig_that_comes_later_or_is_mended_is_taken() -> Result<()> {
    with_world(|world| async move {
        let good =
            std::fs::read_to_string(world.kubeconfig("good", world.server, world.token())?)?;
        let cluster = with(&world, "later", "")?;
        let path = world.dir.path().join("later");
        std::fs::remove_file(&path)?;
        picture(&cluster, "absence", |p| {
            p.state.to_string().contains("does not exist")
        })
        .await?;
        std::fs::write(&path, good.replace(world.token(), "nobody"))?;
        picture(&cluster, "strangeness", |p| {
            p.state.to_string().contains("credentials")
        })
        .await?;
        std::fs::write(&path, &good)?;
        picture(&cluster, "reachable", |p| {
            p.state.is_reachable() && p.complete
        })
        .await?;
        cluster.create(&instance("web.1.0.1")).await?;
        Ok(())
    })
}

#[test]
fn certificates_that_are_expired_or_of_another_cluster_are_told_apart() -> Result<()> {
    with_world(|world| async move {
        let good =
            std::fs::read_to_string(world.kubeconfig("good", world.server, world.token())?)?;
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        let expired = params.self_signed(&key)?;
        let (cert, keyfile) = (
            world.dir.path().join("old.crt"),
            world.dir.path().join("old.key"),
        );
        std::fs::write(&cert, expired.pem())?;
        std::fs::write(&keyfile, key.serialize_pem())?;
        // Relative paths are relative to the kubeconfig.
        let user = "user: {client-certificate: old.crt, client-key: old.key}";
        let text = good.replace(&format!("user: {{token: {}}}", world.token()), user);
        ensure!(text != good);
        let error = why(&with(&world, "expired", &text)?).await?;
        ensure!(
            matches!(&error, Error::CertificateExpired { on, .. } if on.contains("2020")),
            "{error:?}"
        );

        let other = rcgen::CertificateParams::new(vec!["k".to_owned()])?.self_signed(&key)?;
        let other = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, other.pem());
        let at = good
            .find("certificate-authority-data: ")
            .unwrap_or_default()
            + 28;
        let end = at + good[at..].find('}').unwrap_or_default();
        let text = format!("{}{other}{}", &good[..at], &good[end..]);
        let error = why(&with(&world, "other-cluster", &text)?).await?;
        ensure!(
            matches!(&error, Error::Unreachable { why, .. } if why.contains("not from the authority")),
            "{error:?}"
        );
        Ok(())
    })
}

#[test]
fn a_namespace_that_is_not_there_is_named() -> Result<()> {
    with_world(|world| async move {
        let mut config = world.config(world.server, "true", "true")?;
        config.namespace = "berth-nowhere".to_owned();
        let error = why(&Cluster::start(config)).await?;
        // Who has no rights there is told no more than that.
        ensure!(
            matches!(&error, Error::Forbidden { namespace, .. } if namespace == "berth-nowhere"),
            "{error:?}"
        );
        Ok(())
    })
}
