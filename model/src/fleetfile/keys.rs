//! Every key of a fleet file: what the parser knows, and the reference in the docs.

/// One key of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What is written behind it.
    pub value: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// One kind of entry, `[KIND.NAME]`.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As it is written.
    pub name: &'static str,
    /// What an entry declares.
    pub meaning: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const fn key(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        value,
        default,
        meaning,
    }
}

const MODEL: Key = key(
    "model",
    "text",
    "required",
    "`NAME`, `NAME@1.2.0` or `NAME@#3`; without a version the newest push, those of these files included",
);
const RUNTIME: Key = key(
    "runtime",
    "`process`, `docker`, `kubernetes`",
    "`process`",
    "what starts it",
);
const POOL: Key = key("pool", "text", "any place", "the pool to place in");
const ENV: Key = key("env", "table", "none", "environment variables");

/// Every kind of entry.
pub const KINDS: [Kind; 5] = [
    Kind {
        name: "node",
        meaning: "Labels of a node that has joined.",
        keys: &[key(
            "labels",
            "table",
            "required",
            "labels that it shall have; those that others gave it stay",
        )],
    },
    Kind {
        name: "pool",
        meaning: "A named set of nodes and clusters.",
        keys: &[key(
            "labels",
            "table",
            "required",
            "labels that a node or cluster must have to be in it; at least one",
        )],
    },
    Kind {
        name: "model",
        meaning: "A model version that must be registered: `package`, `version` or both.",
        keys: &[
            key(
                "package",
                "path",
                "pushed already",
                "a package's folder or archive beside the file; it is pushed if its version is not there",
            ),
            key(
                "version",
                "semver",
                "the package's",
                "the version that must be there, or that the package must have",
            ),
            key(
                "digest",
                "`sha256:…`",
                "any",
                "the package that the version must be",
            ),
        ],
    },
    Kind {
        name: "service",
        meaning: "A service, as `berth deploy` makes it.",
        keys: &[
            MODEL,
            key(
                "replicas",
                "number",
                "what it has, or 1",
                "how many instances; without it `berth service scale` decides",
            ),
            RUNTIME,
            POOL,
            key(
                "spread",
                "list of labels",
                "`[\"zone\", \"rack\", \"host\"]`",
                "the failure domains that instances are spread over, the widest first",
            ),
            ENV,
            key(
                "max_unavailable",
                "number",
                "what it has, or 1",
                "how many instances may be missing during a change without spare places",
            ),
        ],
    },
    Kind {
        name: "job",
        meaning: "A job, as `berth job run` makes it: run once, when there is none of that name.",
        keys: &[
            MODEL,
            key(
                "input",
                "path, or a table",
                "none",
                "a file or folder beside the file; or, as `berth export` writes it, what was uploaded",
            ),
            key("completions", "number", "1", "shards wanted"),
            key(
                "parallelism",
                "number",
                "as many as shards",
                "tasks at a time",
            ),
            key(
                "retries",
                "number",
                "3",
                "failed attempts that are made up for, of all tasks together",
            ),
            key(
                "deadline",
                "duration",
                "none",
                "the longest it may take, as in `\"30m\"`",
            ),
            RUNTIME,
            POOL,
            ENV,
        ],
    },
];

impl Kind {
    /// The names of its keys.
    pub fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}

/// The kind of this name.
pub(super) fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The reference of all keys in Markdown.
pub fn reference() -> String {
    let mut text = String::new();
    for kind in &KINDS {
        text.push_str(&format!(
            "### `[{}.NAME]`\n\n{}\n\n| key | value | without it | |\n|---|---|---|---|\n",
            kind.name, kind.meaning
        ));
        for key in kind.keys {
            text.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                key.name, key.value, key.default, key.meaning
            ));
        }
        text.push('\n');
    }
    text
}
