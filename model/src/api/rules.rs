//! What the figures and texts of requests may be, whoever asks: a command, a program or a fleet file.
//! What needs to know the fleet (is there such a model?) is the coordinator's to check.

use std::collections::BTreeMap;

use super::{CreateJob, Deploy, NodeLabels, PutPool};
use crate::manifest::rules;
use crate::time::Span;

/// Most instances of one service.
pub const MAX_REPLICAS: u32 = 1_000;
/// Most shards of one job.
pub const MAX_COMPLETIONS: u32 = 1_000;
/// Most failed attempts that can be made up for.
pub const MAX_RETRIES: u32 = 10_000;
/// Most bytes of environment variables: they go into every desired set of the service's nodes.
pub const MAX_ENV_BYTES: usize = 32 * 1024;
/// Longest name of a pool and longest value of a label that chooses nodes.
pub const MAX_LABEL: usize = 63;

/// Most labels of failure domains that a service's instances are spread over.
pub const MAX_SPREAD: usize = 4;
/// Most labels of one thing.
pub const MAX_LABELS: usize = 64;

type Checked = Result<(), String>;

/// How many instances a service may have.
pub fn replicas(n: u32) -> Checked {
    if n > MAX_REPLICAS {
        return Err(format!(
            "{n} instances are more than a service may have ({MAX_REPLICAS})"
        ));
    }
    Ok(())
}

/// How many instances may be missing during a change; 0 for none.
pub fn max_unavailable(n: u32) -> Checked {
    if n > MAX_REPLICAS {
        return Err(format!(
            "max_unavailable {n} is more than a service may have instances ({MAX_REPLICAS})"
        ));
    }
    Ok(())
}

/// A pool is a record or a label, and as long as any label may be.
pub fn pool(name: &str) -> Checked {
    if name.is_empty() || name.len() > MAX_LABEL {
        return Err(
            "a pool's name has 1 to 63 characters: choose one, or leave it out for any place"
                .to_owned(),
        );
    }
    Ok(())
}

/// Labels of failure domains, the widest first.
pub fn spread(labels: &[String]) -> Checked {
    if labels.len() > MAX_SPREAD {
        return Err(format!(
            "instances are spread over at most {MAX_SPREAD} labels"
        ));
    }
    for (i, label) in labels.iter().enumerate() {
        label_key(label)?;
        if labels.iter().take(i).any(|earlier| earlier == label) {
            return Err(format!("{label} is named twice"));
        }
    }
    Ok(())
}

/// One environment variable's name.
pub fn env_name(name: &str) -> Checked {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!(
            "{name:?} cannot be the name of an environment variable"
        ));
    }
    Ok(())
}

/// Variables that a process can have, and not too many.
pub fn env(env: &BTreeMap<String, String>) -> Checked {
    let bytes: usize = env.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > MAX_ENV_BYTES {
        return Err(format!(
            "the environment variables take {bytes} bytes; at most {MAX_ENV_BYTES} are allowed: put large \
             values into the package"
        ));
    }
    env.keys().try_for_each(|name| env_name(name))?;
    if env.values().any(|v| v.contains('\0')) {
        return Err("an environment variable's value contains a zero byte".to_owned());
    }
    Ok(())
}

/// A label's key.
pub fn label_key(key: &str) -> Checked {
    rules::label_key(key)
}

/// A label's value.
pub fn label_value(value: &str) -> Checked {
    rules::one_line(value.to_owned())?;
    if value.len() > MAX_LABEL {
        return Err(format!("a label's value has at most {MAX_LABEL} bytes"));
    }
    Ok(())
}

/// Labels of one thing.
pub fn labels(labels: &BTreeMap<String, String>) -> Checked {
    if labels.len() > MAX_LABELS {
        return Err(format!("at most {MAX_LABELS} labels are possible"));
    }
    labels.iter().try_for_each(|(key, value)| {
        label_key(key)?;
        label_value(value)
    })
}

/// How many shards a job may have.
pub fn completions(n: u32) -> Checked {
    if n == 0 || n > MAX_COMPLETIONS {
        return Err(format!("a job has 1 to {MAX_COMPLETIONS} completions"));
    }
    Ok(())
}

/// How many tasks at a time.
pub fn parallelism(n: u32) -> Checked {
    if n == 0 {
        return Err("with a parallelism of 0 nothing would ever run: choose 1 or more".to_owned());
    }
    Ok(())
}

/// How many failed attempts are made up for.
pub fn retries(n: u32) -> Checked {
    if n > MAX_RETRIES {
        return Err(format!("at most {MAX_RETRIES} retries are made"));
    }
    Ok(())
}

/// The longest that a job may take.
pub fn deadline(span: Span) -> Checked {
    if span.as_millis() == 0 {
        return Err("a deadline of 0 would be over at once: leave it out for none".to_owned());
    }
    Ok(())
}

impl Deploy {
    /// Every rule for its figures and texts.
    pub fn check(&self) -> Checked {
        self.replicas.map_or(Ok(()), replicas)?;
        self.max_unavailable.map_or(Ok(()), max_unavailable)?;
        env(&self.env)?;
        self.spread.as_deref().map_or(Ok(()), spread)?;
        self.pool.as_deref().map_or(Ok(()), pool)
    }
}

impl PutPool {
    /// Every rule for what a pool chooses by.
    pub fn check(&self) -> Checked {
        if self.labels.is_empty() {
            return Err(
                "a pool chooses by at least one label: without any it would be every node, which is what \
                 leaving out the pool means"
                    .to_owned(),
            );
        }
        labels(&self.labels)
    }
}

impl NodeLabels {
    /// Every rule for labels that a node shall have.
    pub fn check(&self) -> Checked {
        labels(&self.labels)
    }
}

impl CreateJob {
    /// Every rule for its figures and texts.
    pub fn check(&self) -> Checked {
        env(&self.env)?;
        self.pool.as_deref().map_or(Ok(()), pool)?;
        self.completions.map_or(Ok(()), completions)?;
        self.parallelism.map_or(Ok(()), parallelism)?;
        self.retries.map_or(Ok(()), retries)?;
        self.deadline.map_or(Ok(()), deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let env = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
        let deploy = |replicas, pool: Option<&str>, env| Deploy {
            model: "m".into(),
            replicas,
            pool: pool.map(Into::into),
            spread: None,
            env,
            ..Deploy::default()
        };
        for (bad, words) in [
            (deploy(Some(1_001), None, BTreeMap::new()), "1001 instances"),
            (deploy(None, Some(""), BTreeMap::new()), "1 to 63"),
            (deploy(None, None, env("A=B", "")), "A=B"),
            (deploy(None, None, env("A", "\0")), "zero byte"),
            (
                deploy(None, None, env("A", &"x".repeat(40_000))),
                "40001 bytes",
            ),
        ] {
            assert!(bad.check().unwrap_err().contains(words), "{words}");
        }
        deploy(Some(1_000), Some("gpu"), env("A", "1"))
            .check()
            .unwrap();
        let job = |change: fn(&mut CreateJob)| {
            let mut job = CreateJob::default();
            change(&mut job);
            job.check()
        };
        assert!(job(|_| {}).is_ok());
        assert!(job(|j| j.completions = Some(0)).is_err());
        assert!(job(|j| j.completions = Some(1_001)).is_err());
        assert!(job(|j| j.parallelism = Some(0)).is_err());
        assert!(job(|j| j.retries = Some(10_001)).is_err());
        assert!(job(|j| j.deadline = Some(Span::millis(0))).is_err());
        assert!(label_value(&"x".repeat(64)).is_err());
    }
}
