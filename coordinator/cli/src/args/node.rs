//! `berth node`.

use berth_model::id::NodeName;
use berth_model::time::Span;
use clap::Subcommand;

use super::{Reading, key_value};

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// All nodes
    List(Reading),
    /// One node
    Show {
        /// The node
        node: String,
        #[command(flatten)]
        reading: Reading,
    },
    /// Keep new instances off a node; what runs there stays
    Cordon {
        /// The node
        node: NodeName,
    },
    /// Let a node take instances again; ends a drain, too
    Uncordon {
        /// The node
        node: NodeName,
    },
    /// Empty a node: what is on it is replaced on other nodes first, then stopped
    Drain(Drain),
    /// Set and take away labels of a node; they count for what is placed from now on
    Label(Label),
    /// Take a node out of the fleet; what it had is replaced on other nodes
    Remove {
        /// The node
        node: NodeName,
    },
    /// Join tokens
    #[command(subcommand)]
    Token(Token),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// The node
    pub(crate) node: NodeName,
    /// How long what has no spare place may stay [default: 1h]
    #[arg(long, value_name = "D")]
    pub(crate) deadline: Option<Span>,
    /// At the deadline stop everything, whatever the services' max_unavailable says
    #[arg(long)]
    pub(crate) force: bool,
    /// Wait until the node is empty (the default)
    #[arg(long, overrides_with = "no_wait")]
    pub(crate) wait: bool,
    /// Return at once; `berth node show` tells how far it is
    #[arg(long, overrides_with = "wait")]
    pub(crate) no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Label {
    /// The node
    pub(crate) node: NodeName,
    /// KEY=VALUE sets a label, KEY- takes it away
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = change)]
    pub(crate) changes: Vec<LabelChange>,
}

/// One change of a label: its key, and its value or none to take it away.
pub(crate) type LabelChange = (String, Option<String>);

fn change(text: &str) -> Result<LabelChange, String> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !key.is_empty() => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) if !key.is_empty() => Ok((key.to_owned(), None)),
        _ => Err(format!("{text:?} is neither KEY=VALUE nor KEY-")),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token with which machines join
    Create {
        /// How many machines may join with it; 0 for any number
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it lives
        #[arg(long, default_value = "1h")]
        ttl: Span,
        /// Label for the nodes that join with it, KEY=VALUE
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        reading: Reading,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_taken_away() {
        let set = |k: &str, v: &str| Ok((k.to_owned(), Some(v.to_owned())));
        assert_eq!(change("zone=a"), set("zone", "a"));
        assert_eq!(change("zone="), set("zone", ""));
        assert_eq!(change("a=b-"), set("a", "b-"));
        assert_eq!(change("zone-"), Ok(("zone".to_owned(), None)));
        for bad in ["zone", "=a", "-", ""] {
            assert!(change(bad).is_err(), "{bad}");
        }
    }
}
