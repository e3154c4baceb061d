//! Credentials of registries, from a file as `docker login` writes it.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde_json::Value;

/// What Docker's own registry is called in the file.
const DEFAULT: &str = "https://index.docker.io/v1/";

/// The registry of an image: its first part, if that looks like a host.
fn registry(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// The credentials for an image's registry, if the file has some. Errors: the file is not what it should be.
pub(super) fn of(file: Option<&Path>, image: &str) -> Result<Option<DockerCredentials>, String> {
    let Some(file) = file else { return Ok(None) };
    let bad = |why: String| {
        format!(
            "the credentials in {} cannot be used: {why}",
            file.display()
        )
    };
    let text = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let host = registry(image);
    let entry = value["auths"].as_object().and_then(|auths| match host {
        Some(host) => auths.iter().find(|(key, _)| {
            let key = key
                .trim_start_matches("https://")
                .trim_start_matches("http://");
            key.split('/').next() == Some(host)
        }),
        None => auths.iter().find(|(key, _)| key.as_str() == DEFAULT),
    });
    let Some((_, entry)) = entry else {
        return Ok(None);
    };
    let server = Some(host.unwrap_or(DEFAULT).to_owned());
    if let Some(token) = entry["identitytoken"]
        .as_str()
        .filter(|token| !token.is_empty())
    {
        return Ok(Some(DockerCredentials {
            identitytoken: Some(token.to_owned()),
            serveraddress: server,
            ..DockerCredentials::default()
        }));
    }
    let Some(auth) = entry["auth"].as_str() else {
        let why = "an entry without \"auth\" (credential helpers are not supported: use docker login without one)";
        return Err(bad(why.to_owned()));
    };
    let pair = STANDARD
        .decode(auth)
        .ok()
        .and_then(|pair| String::from_utf8(pair).ok());
    let (user, password) = pair
        .as_deref()
        .and_then(|pair| pair.split_once(':'))
        .ok_or_else(|| bad("\"auth\" is not base64 of USER:PASSWORD".to_owned()))?;
    Ok(Some(DockerCredentials {
        username: Some(user.to_owned()),
        password: Some(password.to_owned()),
        serveraddress: server,
        ..DockerCredentials::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_of_the_images_registry_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let auth = STANDARD.encode("me:se:cret");
        let text = format!(
            "{{\"auths\":{{\"r.example:5000\":{{\"auth\":\"{auth}\"}},\"{DEFAULT}\":{{\"identitytoken\":\"t\"}},\
             \"bad.example\":{{}}}}}}"
        );
        std::fs::write(&file, text).unwrap();
        let of = |image: &str| of(Some(&file), image);
        let found = of("r.example:5000/berth/x:1").unwrap().unwrap();
        assert_eq!(found.username.as_deref(), Some("me"));
        assert_eq!(found.password.as_deref(), Some("se:cret"));
        assert_eq!(
            of("python:3").unwrap().unwrap().identitytoken.as_deref(),
            Some("t")
        );
        assert!(of("other.example/x").unwrap().is_none());
        assert!(
            of("bad.example/x")
                .unwrap_err()
                .contains("credential helpers")
        );
        std::fs::write(&file, "no json").unwrap();
        assert!(of("python:3").is_err());
        assert!(super::of(None, "python:3").unwrap().is_none());
    }
}
