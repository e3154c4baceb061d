//! From a method, a path and a body to a reply. Texts and status codes are TensorFlow Serving's.

use dga_detector::model::Model;
use serde_json::{Value, json};

use crate::config::Config;
use crate::predict::{SIGNATURE, predict};

/// A reply: status, JSON body, and how many names it judges (for the log).
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) names: usize,
}

impl Reply {
    fn ok(body: &Value) -> Self {
        Self {
            status: 200,
            body: body.to_string().into_bytes(),
            names: 0,
        }
    }

    /// `{"error": …}`.
    pub(crate) fn error(status: u16, text: &str) -> Self {
        let body = json!({ "error": text }).to_string().into_bytes();
        Self {
            status,
            body,
            names: 0,
        }
    }
}

/// The loaded model under its name.
pub(crate) struct Api {
    model: Model,
    name: String,
    serial: u64,
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Health,
    Status(Target<'a>),
    Metadata(Target<'a>),
    Predict(Target<'a>),
    Malformed,
    Elsewhere,
}

/// A model, and the version if one is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target<'a> {
    name: &'a str,
    version: Option<&'a str>,
}

impl Api {
    pub(crate) fn new(config: &Config, model: Model) -> Self {
        Self {
            model,
            name: config.model_name.clone(),
            serial: config.serial,
        }
    }

    /// Whether a request to this path is answered from its body.
    pub(crate) fn wants_body(method: &str, path: &str) -> bool {
        matches!(route(method, path), Route::Predict(_))
    }

    /// Answers a request.
    pub(crate) fn answer(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        match route(method, path) {
            // The model is loaded before the port is bound, so to answer is to be ready.
            Route::Health => Reply::ok(&json!({ "status": "ok" })),
            Route::Status(target) => match self.find(target, unknown) {
                Ok(()) => Reply::ok(&self.status()),
                Err(reply) => reply,
            },
            Route::Metadata(target) => match self.find(target, not_servable) {
                Ok(()) => Reply::ok(&self.metadata()),
                Err(reply) => reply,
            },
            Route::Predict(target) => match self.find(target, not_servable) {
                Ok(()) => match predict(&self.model, body) {
                    Ok(answer) => Reply {
                        status: 200,
                        body: answer.body,
                        names: answer.names,
                    },
                    Err(error) => Reply::error(400, &error.to_string()),
                },
                Err(reply) => reply,
            },
            Route::Malformed => Reply::error(400, &format!("Malformed request: {method} {path}")),
            Route::Elsewhere => Reply::error(404, &format!("Not found: {path}")),
        }
    }

    fn find(&self, target: Target<'_>, missing: fn(Target<'_>) -> String) -> Result<(), Reply> {
        if let Some(version) = target.version {
            let Ok(number) = version.parse::<i64>() else {
                let text = format!("Failed to convert version: {version} to numeric.");
                return Err(Reply::error(400, &text));
            };
            if u64::try_from(number) != Ok(self.serial) {
                return Err(Reply::error(404, &missing(target)));
            }
        }
        if target.name == self.name {
            Ok(())
        } else {
            Err(Reply::error(404, &missing(target)))
        }
    }

    fn status(&self) -> Value {
        json!({ "model_version_status": [{
            "version": self.serial.to_string(),
            "state": "AVAILABLE",
            "status": { "error_code": "OK", "error_message": "" },
        }] })
    }

    fn metadata(&self) -> Value {
        let tensor = |dtype: &str, name: &str| {
            json!({
                "dtype": dtype,
                "tensor_shape": { "dim": [{ "size": "-1", "name": "" }], "unknown_rank": false },
                "name": name,
            })
        };
        json!({
            "model_spec": {
                "name": self.name,
                "signature_name": "",
                "version": self.serial.to_string(),
            },
            "metadata": { "signature_def": { "signature_def": { SIGNATURE: {
                "inputs": { "domain": tensor("DT_STRING", "domain") },
                "outputs": {
                    "domain": tensor("DT_STRING", "domain"),
                    "score": tensor("DT_DOUBLE", "score"),
                    "verdict": tensor("DT_STRING", "verdict"),
                },
                "method_name": "tensorflow/serving/predict",
            } } } },
        })
    }
}

fn unknown(target: Target<'_>) -> String {
    match target.version {
        Some(version) => format!("Could not find version {version} of model {}", target.name),
        None => format!("Could not find any versions of model {}", target.name),
    }
}

fn not_servable(target: Target<'_>) -> String {
    match target.version {
        Some(version) => {
            format!(
                "Servable not found for request: Specific({}, {version})",
                target.name
            )
        }
        None => format!("Servable not found for request: Latest({})", target.name),
    }
}

fn route<'a>(method: &str, path: &'a str) -> Route<'a> {
    if path == "/healthz" {
        return match method {
            "GET" | "HEAD" => Route::Health,
            _ => Route::Malformed,
        };
    }
    let Some(rest) = path.strip_prefix("/v1/") else {
        return Route::Elsewhere;
    };
    let Some(rest) = rest.strip_prefix("models/") else {
        return Route::Malformed;
    };
    let found = match (method, rest.rsplit_once(':')) {
        ("POST", Some((rest, "predict"))) => target(rest).map(Route::Predict),
        ("GET", None) => match rest.strip_suffix("/metadata") {
            Some(rest) => target(rest).map(Route::Metadata),
            None => target(rest).map(Route::Status),
        },
        _ => None,
    };
    found.unwrap_or(Route::Malformed)
}

/// `NAME` or `NAME/versions/DIGITS`.
fn target(text: &str) -> Option<Target<'_>> {
    let (name, version) = match text.split_once('/') {
        None => (text, None),
        Some((name, rest)) => (name, Some(rest.strip_prefix("versions/")?)),
    };
    let digits = |v: &str| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit());
    let valid = !name.is_empty() && !name.contains(':') && version.is_none_or(digits);
    valid.then_some(Target { name, version })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dga_detector::model::Expert;
    use proptest::prelude::*;

    fn api() -> Api {
        let expert = Expert {
            scale: 0.01,
            bias: 0.5,
            weights: vec![1; 256],
        };
        let model = Model::new(8, vec![expert]).unwrap();
        Api {
            model,
            name: "dga".to_owned(),
            serial: 3,
        }
    }

    fn ask(method: &str, path: &str, body: &str) -> (u16, Value) {
        let reply = api().answer(method, path, body.as_bytes());
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    #[test]
    fn speaks_as_tensorflow_serving_does() {
        let body = r#"{"instances": ["example.com"]}"#;
        for path in [
            "/v1/models/dga:predict",
            "/v1/models/dga/versions/3:predict",
        ] {
            let (status, answer) = ask("POST", path, body);
            assert_eq!(
                (status, &answer["predictions"][0]["domain"]),
                (200, &json!("example.com"))
            );
        }
        for path in ["/v1/models/dga", "/v1/models/dga/versions/3"] {
            let (status, answer) = ask("GET", path, "");
            assert_eq!(status, 200);
            assert_eq!(answer["model_version_status"][0]["version"], "3");
            assert_eq!(answer["model_version_status"][0]["state"], "AVAILABLE");
        }
        let (status, answer) = ask("GET", "/v1/models/dga/metadata", "");
        assert_eq!(
            (status, &answer["model_spec"]["version"]),
            (200, &json!("3"))
        );
        let signature = &answer["metadata"]["signature_def"]["signature_def"][SIGNATURE];
        assert_eq!(signature["inputs"]["domain"]["dtype"], "DT_STRING");
        assert_eq!(ask("GET", "/healthz", "").0, 200);
    }

    #[test]
    fn fails_as_tensorflow_serving_does() {
        let big = "99999999999999999999";
        let convert = format!("Failed to convert version: {big} to numeric.");
        let path = format!("/v1/models/dga/versions/{big}:predict");
        for (method, path, status, text) in [
            (
                "POST",
                "/v1/models/x:predict",
                404,
                "Servable not found for request: Latest(x)",
            ),
            (
                "POST",
                "/v1/models/dga/versions/4:predict",
                404,
                "Servable not found for request: Specific(dga, 4)",
            ),
            (
                "GET",
                "/v1/models/x",
                404,
                "Could not find any versions of model x",
            ),
            (
                "GET",
                "/v1/models/dga/versions/9",
                404,
                "Could not find version 9 of model dga",
            ),
            (
                "GET",
                "/v1/models/dga:predict",
                400,
                "Malformed request: GET /v1/models/dga:predict",
            ),
            (
                "POST",
                "/v1/models/dga",
                400,
                "Malformed request: POST /v1/models/dga",
            ),
            (
                "POST",
                "/v1/models/dga:classify",
                400,
                "Malformed request: POST /v1/models/dga:classify",
            ),
            (
                "GET",
                "/v1/models/",
                400,
                "Malformed request: GET /v1/models/",
            ),
            ("GET", "/else", 404, "Not found: /else"),
            ("POST", path.as_str(), 400, convert.as_str()),
        ] {
            assert_eq!(
                ask(method, path, "{}"),
                (status, json!({ "error": text })),
                "{path}"
            );
        }
        let (status, answer) = ask("POST", "/v1/models/dga:predict", "{}");
        assert_eq!(status, 400);
        assert_eq!(answer["error"], "Missing 'inputs' or 'instances' key");
    }

    proptest! {
        #[test]
        fn any_path_gets_a_json_reply(method in "GET|POST|PUT", path in "(/v1/models/)?\\PC{0,40}") {
            let reply = api().answer(&method, &path, b"{}");
            prop_assert!(serde_json::from_slice::<Value>(&reply.body).is_ok());
            prop_assert!((200..500).contains(&reply.status));
        }
    }
}
