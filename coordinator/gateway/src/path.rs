//! The gateway's URL scheme.

use http::Method;

use crate::refusal::Refusal;

/// Which version of a model is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Whichever the service's policy chooses.
    Any,
    /// `/versions/SERIAL`.
    Serial(u64),
}

/// What is wanted of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// `:predict`, or a POST without a verb.
    Predict,
    /// `:classify` or `:regress`.
    OtherVerb,
    /// GET of the model's status or metadata.
    Read,
    /// `/s/SERVICE/…`.
    Free {
        /// Length of `/s/SERVICE`, which the module is not shown.
        prefix: usize,
    },
}

/// A request's path, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call<'a> {
    pub(crate) service: &'a str,
    pub(crate) version: Version,
    pub(crate) action: Action,
}

impl Call<'_> {
    /// Whether a request that may have reached an instance may be sent to another one, given
    /// whether the service's predictions may.
    pub(crate) fn retryable(&self, method: &Method, predictions: bool) -> bool {
        match self.action {
            Action::Predict | Action::OtherVerb => predictions,
            Action::Read | Action::Free { .. } => method == Method::GET || method == Method::HEAD,
        }
    }
}

const MODELS: &str = "/v1/models/";
const FREE: &str = "/s/";

/// Takes a path apart. `path` has no query.
pub(crate) fn parse<'a>(method: &Method, path: &'a str) -> Result<Call<'a>, Refusal> {
    if let Some(rest) = path.strip_prefix(MODELS) {
        return model(method, path, rest);
    }
    if let Some(rest) = path.strip_prefix(FREE) {
        let split = rest.find('/').unwrap_or(rest.len());
        return Ok(Call {
            service: named(&rest[..split])?,
            version: Version::Any,
            action: Action::Free {
                prefix: FREE.len() + split,
            },
        });
    }
    Err(Refusal::no_such_path(
        "Unknown path: use /v1/models/SERVICE[:predict|:classify|:regress] or /s/SERVICE/PATH.",
    ))
}

fn model<'a>(method: &Method, path: &str, rest: &'a str) -> Result<Call<'a>, Refusal> {
    let split = rest.find(['/', ':']).unwrap_or(rest.len());
    let (service, mut tail) = rest.split_at(split);
    let service = named(service)?;
    let mut version = Version::Any;
    if let Some(after) = tail.strip_prefix("/versions/") {
        let (text, rest) = after.split_at(after.find(['/', ':']).unwrap_or(after.len()));
        version = Version::Serial(serial(text).ok_or_else(|| malformed(method, path))?);
        tail = rest;
    } else if let Some(after) = tail.strip_prefix("/labels/") {
        let label = &after[..after.find(['/', ':']).unwrap_or(after.len())];
        return Err(Refusal::bad_request(format!(
            "Unrecognized servable version label: {}",
            shown(label)
        )));
    }
    let action = match tail {
        ":predict" => Action::Predict,
        ":classify" | ":regress" => Action::OtherVerb,
        "/metadata" => Action::Read,
        "" if method == Method::POST => Action::Predict,
        "" => Action::Read,
        _ => return Err(malformed(method, path)),
    };
    let read = action == Action::Read;
    if read && !(method == Method::GET || method == Method::HEAD) {
        return Err(not_allowed(method, path, "GET, HEAD"));
    }
    if !read && method != Method::POST {
        return Err(not_allowed(method, path, "POST"));
    }
    Ok(Call {
        service,
        version,
        action,
    })
}

/// A serial as TensorFlow Serving takes it: decimal digits only.
fn serial(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn named(service: &str) -> Result<&str, Refusal> {
    if service.is_empty() {
        return Err(Refusal::bad_request("The path names no service."));
    }
    Ok(service)
}

/// The part of a client's text that an answer repeats.
pub(crate) fn shown(text: &str) -> &str {
    const MAX: usize = 100;
    let end = text
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= MAX)
        .last()
        .unwrap_or(0);
    &text[..end]
}

/// TensorFlow Serving's words.
fn malformed(method: &Method, path: &str) -> Refusal {
    let message = format!(
        "Malformed request: {} {}",
        shown(method.as_str()),
        shown(path)
    );
    Refusal::bad_request(message)
}

fn not_allowed(method: &Method, path: &str, allow: &'static str) -> Refusal {
    let message = format!(
        "Method {} is not allowed for {}; use {allow}.",
        shown(method.as_str()),
        shown(path)
    );
    Refusal::method(message, allow)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    fn call(action: Action) -> Call<'static> {
        Call {
            service: "dga",
            version: Version::Any,
            action,
        }
    }

    #[test]
    fn models() {
        let post = |path| parse(&Method::POST, path);
        let get = |path| parse(&Method::GET, path);
        assert_eq!(post("/v1/models/dga:predict"), Ok(call(Action::Predict)));
        assert_eq!(post("/v1/models/dga"), Ok(call(Action::Predict)));
        assert_eq!(post("/v1/models/dga:regress"), Ok(call(Action::OtherVerb)));
        assert_eq!(get("/v1/models/dga"), Ok(call(Action::Read)));
        assert_eq!(get("/v1/models/dga/metadata"), Ok(call(Action::Read)));
        let versioned = Call {
            version: Version::Serial(12),
            ..call(Action::Predict)
        };
        assert_eq!(post("/v1/models/dga/versions/12:predict"), Ok(versioned));
        assert_eq!(
            get("/v1/models/dga/versions/12/metadata").unwrap().version,
            Version::Serial(12)
        );
    }

    #[test]
    fn refused() {
        let status = |method, path| parse(&method, path).unwrap_err().status;
        for path in [
            "/v1/models/",
            "/v1/models/:predict",
            "/v1/models/dga:frobnicate",
            "/v1/models/dga/versions/x:predict",
            "/v1/models/dga/versions/+1:predict",
            "/v1/models/dga/versions/99999999999999999999:predict",
            "/v1/models/dga/other",
            "/s/",
            "/s//x",
        ] {
            assert_eq!(
                status(Method::POST, path),
                StatusCode::BAD_REQUEST,
                "{path}"
            );
        }
        assert_eq!(status(Method::GET, "/v1/models/dga:predict"), 405);
        assert_eq!(status(Method::DELETE, "/v1/models/dga"), 405);
        assert_eq!(status(Method::POST, "/v1/models/dga/metadata"), 405);
        for path in ["", "*", "/", "/v2/models/dga/infer", "/v1/model/dga"] {
            assert_eq!(status(Method::GET, path), StatusCode::NOT_FOUND, "{path}");
        }
        let label = parse(&Method::POST, "/v1/models/dga/labels/stable:predict").unwrap_err();
        assert_eq!(label.message, "Unrecognized servable version label: stable");
    }

    #[test]
    fn free_paths_lose_their_prefix() {
        let rest = |path: &str| match parse(&Method::PUT, path).unwrap().action {
            Action::Free { prefix } => path[prefix..].to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(rest("/s/dga"), "");
        assert_eq!(rest("/s/dga/"), "/");
        assert_eq!(rest("/s/dga/a/../b//c"), "/a/../b//c");
        assert_eq!(rest("/s/dga//x"), "//x");
    }

    #[test]
    fn what_is_retryable() {
        let free = call(Action::Free { prefix: 6 });
        assert!(free.retryable(&Method::GET, false));
        assert!(!free.retryable(&Method::POST, true));
        assert!(call(Action::Predict).retryable(&Method::POST, true));
        assert!(!call(Action::Predict).retryable(&Method::POST, false));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(path in "\\PC*", post: bool) {
            let method = if post { Method::POST } else { Method::GET };
            let _ = parse(&method, &path);
        }

        #[test]
        fn any_scheme_like_text_is_answered(
            path in "(/v1/models/|/s/)?[a-z/:.%]{0,12}(/versions/|/labels/|:predict|/metadata)?[0-9:é]{0,22}"
        ) {
            if let Ok(call) = parse(&Method::POST, &path) {
                prop_assert!(!call.service.is_empty());
                prop_assert!(!call.service.contains('/'));
            }
            prop_assert!(shown(&path).len() <= 100);
        }
    }
}
