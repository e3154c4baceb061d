//! The OpenAPI document, made from the table of endpoints and the schemas beside this file.

use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::auth::Access;
use super::endpoint::{self, Body, Endpoint};
use crate::edge::Edge;

const SCHEMAS: &str = include_str!("schemas.json");

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

pub(super) async fn serve(State(_): State<Arc<Edge>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in endpoint::all() {
        let operations = paths
            .entry(endpoint.path)
            .or_insert_with(|| Value::Object(Map::new()));
        operations[endpoint.method.to_lowercase()] = operation(&endpoint);
    }
    // The file is part of the program; a test reads it.
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Berth admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every answer has the header berth-version. Errors are problem documents (RFC 9457) \
                            whose type is urn:berth:problem:CODE.",
            "license": {"name": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {"Problem": {
                "description": "What is wrong and what to do.",
                "content": {"application/problem+json": {"schema": reference("Problem")}},
            }},
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let (status, answer) = endpoint.answer;
    let mut success = json!({"description": "Success."});
    if let Some(content) = content(answer) {
        success["content"] = content;
    }
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": endpoint.summary,
        "parameters": parameters(endpoint),
        "responses": {
            status.to_string(): success,
            "default": {"$ref": "#/components/responses/Problem"},
        },
    });
    if let Some(content) = content(endpoint.body) {
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    if endpoint.access == Access::Open {
        operation["security"] = json!([]);
    }
    operation
}

fn operation_id(endpoint: &Endpoint) -> String {
    let words: Vec<&str> = endpoint
        .path
        .split(['/', '.', '{', '}'])
        .filter(|word| !word.is_empty() && *word != "v1")
        .collect();
    format!("{}-{}", endpoint.method.to_lowercase(), words.join("-"))
}

fn parameters(endpoint: &Endpoint) -> Value {
    let in_path = endpoint.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
    });
    let in_query = endpoint.query.iter().map(|(name, meaning)| {
        json!({"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}})
    });
    let headers: &[&str] = match endpoint.method {
        "PATCH" => &["Upload-Offset", "Upload-Length"],
        _ => &[],
    };
    let in_headers = headers.iter().map(|name| {
        json!({"name": name, "in": "header", "required": true, "schema": {"type": "integer"}})
    });
    in_path.chain(in_query).chain(in_headers).collect()
}

fn content(body: Body) -> Option<Value> {
    let list = |name| {
        json!({"type": "object", "required": ["items"],
               "properties": {"items": {"type": "array", "items": reference(name)}}})
    };
    Some(match body {
        Body::Nothing => return None,
        Body::Json(name) => json!({"application/json": {"schema": reference(name)}}),
        Body::Free => json!({"application/json": {}}),
        Body::List(name) => json!({"application/json": {"schema": list(name)}}),
        Body::Events(name) => json!({"text/event-stream": {"schema": reference(name)}}),
        Body::ListOrEvents(name) => json!({
            "application/json": {"schema": list(name)},
            "text/event-stream": {"schema": reference(name)},
        }),
        Body::Bytes => json!({"application/octet-stream": {}}),
        Body::Text => json!({"text/plain": {"schema": {"type": "string"}}}),
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

#[cfg(test)]
mod tests;
