//! What the texts in a manifest may look like.

use crate::read::suggest::did_you_mean;

/// Variables that Berth sets for a module, which its command may name as `${NAME}`.
pub const MODULE_VARIABLES: [&str; 8] = [
    "HOST",
    "PORT",
    "BERTH_MODEL_DIR",
    "BERTH_MODEL_NAME",
    "BERTH_MODEL_VERSION",
    "BERTH_MODEL_SERIAL",
    "BERTH_INSTANCE",
    "BERTH_SECRETS_DIR",
];
/// Those that a transform has beside the module's.
pub const TRANSFORM_VARIABLES: [&str; 1] = ["BERTH_PREDICTOR_URL"];
/// Those that a job has beside the module's.
pub const JOB_VARIABLES: [&str; 3] = ["BERTH_JOB_INPUT", "BERTH_JOB_OUTPUT", "BERTH_JOB_INDEX"];

type Checked<T> = Result<T, String>;

/// A path inside the package in its one form: `./model/` becomes `model`.
pub(super) fn package_path(text: String) -> Checked<String> {
    let trimmed = text.strip_prefix("./").unwrap_or(&text);
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    let trimmed = if trimmed.is_empty() && text == "./" {
        "."
    } else {
        trimmed
    };
    if trimmed == "." {
        return Ok(trimmed.to_owned());
    }
    if trimmed.is_empty() {
        return Err("expected a path inside the package, or \".\" for the package itself".into());
    }
    if text.starts_with('/') {
        return Err(format!(
            "{text:?} is absolute: write a path inside the package"
        ));
    }
    if trimmed.chars().any(char::is_control) {
        return Err(format!("{text:?} holds a control character"));
    }
    if trimmed
        .split('/')
        .any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(format!(
            "{text:?} must not hold an empty part, \".\" or \"..\""
        ));
    }
    Ok(trimmed.to_owned())
}

/// An absolute path of an HTTP request, without query.
pub(super) fn http_path(text: String) -> Checked<String> {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'"' | b'<' | b'>');
    if text.starts_with('/') && text.bytes().all(plain) {
        Ok(text)
    } else {
        Err(format!(
            "{text:?} is not an HTTP path: write one such as \"/healthz\""
        ))
    }
}

/// The name of an environment variable that a user may set.
pub(super) fn env_name(name: &str) -> Checked<()> {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!(
            "{name:?} is not a variable name: use letters, digits and '_', not a digit first"
        ));
    }
    if matches!(name, "HOST" | "PORT") || name.starts_with("BERTH_") {
        return Err(format!("{name} is set by Berth; choose another name"));
    }
    Ok(())
}

/// A label's key.
pub(crate) fn label_key(key: &str) -> Checked<()> {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = key.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    if key.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner) {
        Ok(())
    } else {
        Err(format!(
            "{key:?} is not a label: use 1 to 63 letters, digits, '.', '_', '-' and '/', \
             beginning and ending with a letter or digit"
        ))
    }
}

/// A label's value, or another text of one line.
pub(crate) fn one_line(text: String) -> Checked<String> {
    if text.chars().any(char::is_control) {
        Err(format!("{text:?} holds a control character"))
    } else if text.len() > 1024 {
        Err("longer than 1024 bytes".into())
    } else {
        Ok(text)
    }
}

/// A container image's reference.
pub(super) fn image(text: String) -> Checked<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(format!("{text:?} is not an image reference"))
    }
}

/// What may be dialled: `HOST`, `HOST:PORT`, `ADDRESS/BITS` or `ADDRESS/BITS:PORT`.
pub(super) fn egress(text: String) -> Checked<String> {
    let bad =
        || format!("{text:?} is no destination: write HOST, HOST:PORT or ADDRESS/BITS[:PORT]");
    let (host, port) = match text.rsplit_once(':') {
        // A bare IPv6 address has colons of its own; with a port it stands in brackets.
        Some((host, port)) if !host.contains(':') || host.contains(']') => (host, Some(port)),
        _ => (text.as_str(), None),
    };
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let host_byte = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'/' | b'[' | b']' | b'*')
    };
    if port_ok && !host.is_empty() && host.bytes().all(host_byte) {
        Ok(text)
    } else {
        Err(bad())
    }
}

/// One argument of a command: each `${NAME}` must name a variable that Berth sets.
pub(super) fn argument(text: &str, further: &[&str]) -> Checked<()> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else {
            return Err("\"${\" without \"}\"".into());
        };
        let known: Vec<&str> = MODULE_VARIABLES.iter().chain(further).copied().collect();
        if !known.contains(&name) {
            return Err(format!(
                "Berth sets no variable {name:?} here{}; write $NAME where a shell is to replace it",
                did_you_mean(name, &known)
            ));
        }
        rest = tail;
    }
    Ok(())
}
