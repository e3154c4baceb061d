//! Bodies of `:predict`: TensorFlow Serving's row format (`instances` → `predictions`) and column
//! format (`inputs` → `outputs`).

use dga_detector::model::Model;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Names in one request. A longer list is better split: one request holds the thread meanwhile.
pub(crate) const MAX_NAMES: usize = 10_000;

/// The only signature.
pub(crate) const SIGNATURE: &str = "serving_default";

/// A body that cannot be answered; the text goes to the client. Always the client's fault (400).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadRequest(String);

/// An answer, and how many names it judges.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) names: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Prediction<'a> {
    domain: &'a str,
    score: f64,
    verdict: &'static str,
}

/// Judges the names in a request's body.
pub(crate) fn predict(model: &Model, body: &[u8]) -> Result<Answer, BadRequest> {
    let document: Value = match serde_json::from_slice(body) {
        Ok(document) => document,
        Err(_) if body.trim_ascii().is_empty() => {
            return bad("JSON Parse error: The document is empty");
        }
        Err(error) => return bad(format!("JSON Parse error: {error}")),
    };
    let Value::Object(fields) = &document else {
        return bad("JSON Value: not an object with an 'inputs' or 'instances' key");
    };
    signature(fields)?;
    match (fields.get("instances"), fields.get("inputs")) {
        (Some(_), Some(_)) => bad(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist",
        ),
        (None, None) => bad("Missing 'inputs' or 'instances' key"),
        (Some(rows), None) => {
            let predictions = judge(model, &from_rows(rows)?, "instances")?;
            answer(&json!({ "predictions": predictions }), predictions.len())
        }
        (None, Some(columns)) => {
            let predictions = judge(model, &from_columns(columns)?, "inputs")?;
            let domains: Vec<_> = predictions.iter().map(|p| p.domain).collect();
            let scores: Vec<_> = predictions.iter().map(|p| p.score).collect();
            let verdicts: Vec<_> = predictions.iter().map(|p| p.verdict).collect();
            let outputs = json!({ "domain": domains, "score": scores, "verdict": verdicts });
            answer(&json!({ "outputs": outputs }), predictions.len())
        }
    }
}

fn bad<T>(text: impl Into<String>) -> Result<T, BadRequest> {
    Err(BadRequest(text.into()))
}

fn answer(body: &Value, names: usize) -> Result<Answer, BadRequest> {
    match serde_json::to_vec(body) {
        Ok(body) => Ok(Answer { body, names }),
        Err(error) => bad(format!("cannot write the answer: {error}")),
    }
}

fn signature(fields: &Map<String, Value>) -> Result<(), BadRequest> {
    match fields.get("signature_name") {
        None => Ok(()),
        Some(Value::String(name)) if name.is_empty() || name == SIGNATURE => Ok(()),
        Some(Value::String(name)) => bad(format!(
            "Serving signature name: \"{name}\" not found in signature def"
        )),
        Some(_) => bad("'signature_name' key must be a string value."),
    }
}

/// `["a.com", …]` or `[{"domain": "a.com"}, …]`.
fn from_rows(rows: &Value) -> Result<Vec<&str>, BadRequest> {
    let Value::Array(rows) = rows else {
        return bad("Expecting 'instances' value to be an list/array");
    };
    if rows.is_empty() {
        return bad("No values in 'instances' array");
    }
    texts(rows, "instances", |row| match row {
        Value::Object(fields) => fields.get("domain").and_then(Value::as_str),
        other => other.as_str(),
    })
}

/// `"a.com"`, `["a.com", …]` or `{"domain": either}`.
fn from_columns(columns: &Value) -> Result<Vec<&str>, BadRequest> {
    match columns {
        Value::Object(fields) => match fields.get("domain") {
            Some(Value::Object(_)) | None => bad("Missing named input: domain"),
            Some(column) => from_columns(column),
        },
        Value::String(name) => Ok(vec![name]),
        Value::Array(names) if names.is_empty() => bad("No values in 'inputs' array"),
        Value::Array(names) => texts(names, "inputs", Value::as_str),
        _ => bad("'inputs' must hold a domain name or a list of them"),
    }
}

fn texts<'a>(
    items: &'a [Value],
    key: &str,
    text: impl Fn(&'a Value) -> Option<&'a str>,
) -> Result<Vec<&'a str>, BadRequest> {
    if items.len() > MAX_NAMES {
        return bad(format!(
            "{} names in '{key}'; at most {MAX_NAMES}",
            items.len()
        ));
    }
    let wrong = |i: usize| format!("{key}[{i}] is neither a string nor has a string 'domain'");
    items
        .iter()
        .enumerate()
        .map(|(i, item)| text(item).ok_or_else(|| BadRequest(wrong(i))))
        .collect()
}

fn judge<'a>(
    model: &Model,
    names: &[&'a str],
    key: &str,
) -> Result<Vec<Prediction<'a>>, BadRequest> {
    let mut scratch = Vec::new();
    let judged =
        names
            .iter()
            .enumerate()
            .map(|(i, &domain)| match model.judge(domain, &mut scratch) {
                Ok(verdict) => Ok(Prediction {
                    domain,
                    score: (verdict.score * 1e6).round() / 1e6,
                    verdict: if verdict.dga { "dga" } else { "benign" },
                }),
                Err(error) => bad(format!("{key}[{i}]: {error}")),
            });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dga_detector::model::Expert;
    use proptest::prelude::*;

    fn model() -> Model {
        let expert = Expert {
            scale: 0.01,
            bias: 0.5,
            weights: vec![1; 256],
        };
        Model::new(8, vec![expert]).unwrap()
    }

    fn ask(body: &str) -> Result<Value, String> {
        predict(&model(), body.as_bytes())
            .map(|answer| serde_json::from_slice(&answer.body).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn answers_rows_with_rows_and_columns_with_columns() {
        let plain = ask(r#"{"instances": ["example.com", "debian.org"]}"#).unwrap();
        let named = r#"{"instances": [{"domain": "example.com"}, {"domain": "debian.org"}]}"#;
        assert_eq!(plain, ask(named).unwrap());
        let rows = plain["predictions"].as_array().unwrap();
        assert_eq!(rows[1]["domain"], "debian.org");
        assert_eq!(rows[1]["verdict"], "dga");
        for body in [
            r#"{"inputs": ["example.com", "debian.org"]}"#,
            r#"{"inputs": {"domain": ["example.com", "debian.org"]}, "signature_name": ""}"#,
        ] {
            let outputs = &ask(body).unwrap()["outputs"];
            assert_eq!(outputs["score"][1], rows[1]["score"]);
            assert_eq!(outputs["domain"], json!(["example.com", "debian.org"]));
        }
        assert_eq!(
            ask(r#"{"inputs": "a.com"}"#).unwrap()["outputs"]["domain"],
            json!(["a.com"])
        );
    }

    #[test]
    fn says_what_is_wrong() {
        for (body, text) in [
            ("", "JSON Parse error: The document is empty"),
            ("{}", "Missing 'inputs' or 'instances' key"),
            ("[]", "JSON Value: not an object"),
            (
                r#"{"instances": 1}"#,
                "Expecting 'instances' value to be an list/array",
            ),
            (r#"{"instances": []}"#, "No values in 'instances' array"),
            (r#"{"instances": ["a.com", 2]}"#, "instances[1] is neither"),
            (
                r#"{"instances": ["a.com", " "]}"#,
                "instances[1]: empty domain name",
            ),
            (
                r#"{"inputs": {"name": "a"}}"#,
                "Missing named input: domain",
            ),
            (
                r#"{"inputs": ["a"], "instances": ["a"]}"#,
                "Not formatted correctly",
            ),
            (
                r#"{"inputs": ["a"], "signature_name": "x"}"#,
                "Serving signature name: \"x\"",
            ),
            ("{\"instances\": [\"a.com\"", "JSON Parse error: EOF"),
        ] {
            let error = ask(body).unwrap_err();
            assert!(error.starts_with(text), "{body}: {error}");
        }
        let many = json!({ "instances": vec!["a.com"; MAX_NAMES + 1] }).to_string();
        assert!(ask(&many).unwrap_err().contains("at most"));
        assert!(ask(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_or_refused(
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = predict(&model(), &body);
        }

        #[test]
        fn any_names_are_answered_or_refused(
            names in proptest::collection::vec(any::<String>(), 0..5),
        ) {
            let body = json!({ "instances": names }).to_string();
            if let Ok(answer) = ask(&body) {
                prop_assert_eq!(answer["predictions"].as_array().unwrap().len(), names.len());
            }
        }
    }
}
