//! From what `kube` and API servers say to [`Error`].

use std::sync::Arc;

use kube::core::Status;

use crate::error::Error;

/// Where and what was asked for; what an error is told in terms of.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) server: String,
    pub(crate) namespace: String,
    pub(crate) what: String,
}

/// `User "x" cannot create resource "jobs" in API group "batch" in the namespace "berth"`.
fn missing_right(words: &str) -> Option<(String, String, String)> {
    let (_, rest) = words.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let group = rest
        .split_once("in API group \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("", |(group, _)| group);
    Some((verb.to_owned(), resource.to_owned(), group.to_owned()))
}

/// What an API server's refusal means.
pub(crate) fn from_status(asked: &Asked, status: &Status) -> Error {
    let words = if status.message.trim().is_empty() {
        status.reason.clone()
    } else {
        status.message.trim().to_owned()
    };
    let server = asked.server.clone();
    let namespace = asked.namespace.clone();
    let absent = |words: &str| {
        words.contains(&format!("namespaces \"{}\" not found", asked.namespace))
            || words.contains("because it is being terminated")
    };
    match status.code {
        401 => Error::Unauthorized { server, words },
        403 if words.contains("exceeded quota") => Error::Quota { namespace, words },
        403 if absent(&words) => Error::NamespaceAbsent { namespace, words },
        403 => match missing_right(&words) {
            Some((verb, resource, group)) => Error::Forbidden {
                verb,
                resource,
                group,
                namespace,
                words,
            },
            None => Error::Refused {
                what: asked.what.clone(),
                words,
            },
        },
        404 if absent(&words) => Error::NamespaceAbsent { namespace, words },
        404 => Error::Absent {
            what: asked.what.clone(),
        },
        429 => Error::Throttled { server, words },
        // Two creates at a time counted towards the same quota.
        409 if status.reason == "Conflict" => Error::Server {
            server,
            code: 409,
            words,
        },
        code if code >= 500 => Error::Server {
            server,
            code,
            words,
        },
        _ => Error::Refused {
            what: asked.what.clone(),
            words,
        },
    }
}

/// The innermost causes say most; the outer ones only name layers.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        words = cause.to_string();
        at = cause.source();
    }
    words
}

/// What a failed call means.
pub(crate) fn from_kube(asked: &Asked, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => from_status(asked, &status),
        kube::Error::SerdeError(error) => Error::Garbled {
            server: asked.server.clone(),
            what: asked.what.clone(),
            why: error.to_string(),
        },
        kube::Error::Auth(error) => Error::Unauthorized {
            server: asked.server.clone(),
            words: innermost(&error),
        },
        other => Error::Unreachable {
            server: asked.server.clone(),
            why: advice(&innermost(&other)),
            source: Some(Arc::new(other)),
        },
    }
}

/// Adds what to do to the words of a failed connection, where that is known.
fn advice(words: &str) -> String {
    let hint = if words.contains("UnknownIssuer") || words.contains("invalid peer certificate") {
        ": its certificate is not from the authority in the kubeconfig (another cluster, or a renewed authority)"
    } else if words.contains("certificate expired") || words.contains("CertificateExpired") {
        ": a certificate is expired"
    } else {
        ""
    };
    format!("{words}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    fn status(code: u16, message: &str) -> Error {
        let asked = Asked {
            server: "https://k".to_owned(),
            namespace: "berth".to_owned(),
            what: "creating Job berth-web-1-0-1".to_owned(),
        };
        from_status(&asked, &Status::failure(message, "R").with_code(code))
    }

    #[test]
    fn a_missing_right_is_named_with_the_rule_to_add() {
        let error = status(
            403,
            r#"jobs.batch is forbidden: User "x" cannot create resource "jobs" in API group "batch" in the namespace "berth""#,
        );
        let Error::Forbidden {
            verb,
            resource,
            group,
            ..
        } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!(
            (verb.as_str(), resource.as_str(), group.as_str()),
            ("create", "jobs", "batch")
        );
        assert_eq!(error.class(), Class::Configuration);
        assert!(error.to_string().contains("add verb \"create\""), "{error}");
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let quota = r#"jobs.batch "b" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=1, limited: count/jobs.batch=1"#;
        assert!(matches!(status(403, quota), Error::Quota { .. }));
        assert!(matches!(
            status(404, r#"namespaces "berth" not found"#),
            Error::NamespaceAbsent { .. }
        ));
        let ending = r#"jobs.batch "b" is forbidden: unable to create new content in namespace berth because it is being terminated"#;
        assert!(matches!(status(403, ending), Error::NamespaceAbsent { .. }));
        assert!(matches!(
            status(403, "admission webhook says no"),
            Error::Refused { .. }
        ));
        assert!(matches!(
            status(404, r#"jobs.batch "b" not found"#),
            Error::Absent { .. }
        ));
        assert!(matches!(
            status(401, "Unauthorized"),
            Error::Unauthorized { .. }
        ));
        assert!(matches!(status(429, "too many"), Error::Throttled { .. }));
        assert!(matches!(
            status(500, "etcd"),
            Error::Server { code: 500, .. }
        ));
        assert!(matches!(status(422, "bad"), Error::Refused { .. }));
    }
}
