//! Join tokens and machines that join.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_model::api::{CreateToken, TokenView, rules};
use berth_model::id::NodeName;
use berth_model::node::{Facts, NodeRecord};
use berth_model::problem::Problem;
use berth_model::time::Span;
use berth_model::token::{JoinToken, TokenRecord};
use sha2::{Digest, Sha256};

use super::check_size;
use crate::control::Join;
use crate::control::events::Happened;
use crate::control::world::World;

const DEFAULT_TTL: Span = Span::secs(3_600);
const MAX_TTL: Span = Span::secs(366 * 86_400);

/// Most bytes of a token's labels and of a machine's facts, and most keys a token remembers.
pub(super) const MAX_LABELS: usize = 16 * 1024;
const MAX_FACTS: usize = 64 * 1024;
const MAX_USERS: usize = 100;

/// Refuses facts that are too large to keep.
pub(crate) fn check_facts(facts: &Facts) -> Result<(), Problem> {
    check_size("what the machine says of itself", facts, MAX_FACTS)
}

/// Makes a token; its secret is shown once and only its hash is kept.
pub(crate) fn create_token(world: &mut World, wanted: CreateToken) -> Result<TokenView, Problem> {
    let ttl = wanted.ttl.unwrap_or(DEFAULT_TTL);
    if ttl.as_millis() == 0 || ttl > MAX_TTL {
        return Err(Problem::invalid(format!(
            "a join token cannot live {ttl}: choose between 1ms and {MAX_TTL}"
        )));
    }
    check_size("the labels", &wanted.labels, MAX_LABELS)?;
    rules::labels(&wanted.labels).map_err(Problem::invalid)?;
    let id = hex::encode(rand::random::<[u8; 8]>());
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let expires = berth_model::time::Timestamp(world.wall.0.saturating_add(ttl.as_millis()));
    let record = TokenRecord {
        id: id.clone(),
        secret_hash: hash(&secret),
        uses_left: match wanted.uses {
            None => Some(1),
            Some(0) => None,
            Some(n) => Some(n),
        },
        expires,
        labels: wanted.labels,
        used_by: Vec::new(),
    };
    world.happened(&Happened::TokenCreated(&id, expires));
    world.records.tokens.put(id.clone(), record);
    let token = JoinToken {
        ca_key_hash: world.ca_key_hash.clone(),
        id,
        secret,
    };
    Ok(TokenView {
        token: token.to_string(),
        expires,
    })
}

/// Forgets tokens whose time is over.
pub(crate) fn prune_tokens(world: &mut World) {
    let now = world.wall;
    let over = world.records.tokens.values().filter(|t| t.expires <= now);
    let over: Vec<String> = over.map(|t| t.id.clone()).collect();
    for id in &over {
        world.records.tokens.remove(id);
    }
}

/// Lets a machine in: checks the token, gives it a name, keeps its key. A machine whose key is known
/// gets the name it has, at no cost.
pub(crate) fn join(world: &mut World, join: &Join) -> Result<NodeName, Problem> {
    let token = check_token(world, join)?;
    let nodes = &world.records.nodes;
    if let Some(name) = nodes.index().node(&join.key_hash) {
        return Ok(name.clone());
    }
    if token.uses_left == Some(0) {
        return Err(Problem::unauthorized(
            "this join token has been used up: make another with `berth node token create`",
        ));
    }
    let name = name_of(join)?;
    if world.records.nodes.contains_key(&name) {
        return Err(Problem::conflict(format!(
            "there is a node {name} with another key already: join under another name with --name, or \
             take the old one out first with `berth node remove {name}`"
        )));
    }
    check_facts(&join.facts)?;
    let record = NodeRecord {
        name: name.clone(),
        key_hash: join.key_hash.clone(),
        facts: join.facts.clone(),
        labels: token.labels.clone(),
        declared: Default::default(),
        cordoned: false,
        drain: None,
        lost: false,
        joined: world.wall,
    };
    let mut token = token;
    token.uses_left = token.uses_left.map(|n| n.saturating_sub(1));
    token.used_by.push(join.key_hash.clone());
    let surplus = token.used_by.len().saturating_sub(MAX_USERS);
    token.used_by.drain(..surplus);
    world.happened(&Happened::NodeJoined(&name));
    world.records.tokens.put(token.id.clone(), token);
    world.records.nodes.put(name.clone(), record);
    Ok(name)
}

/// The token, if the secret fits and its time is not over. Whether it is unknown, wrong or over is
/// not told apart for strangers.
fn check_token(world: &World, join: &Join) -> Result<TokenRecord, Problem> {
    let given = hash(&join.token_secret);
    let token = world.records.tokens.get(&join.token_id);
    // Compared even when there is no such token, so that the time taken says nothing.
    let wanted = token.map_or("", |t| t.secret_hash.as_str());
    let fits = same_bytes(given.as_bytes(), wanted.as_bytes());
    token
        .filter(|t| fits && t.expires > world.wall)
        .cloned()
        .ok_or_else(|| {
            Problem::unauthorized(
                "this join token is unknown or has expired: make another with `berth node token create`",
            )
        })
}

fn name_of(join: &Join) -> Result<NodeName, Problem> {
    if !join.name.is_empty() {
        return NodeName::new(join.name.clone()).map_err(|e| Problem::invalid(e.to_string()));
    }
    let host = &join.facts.hostname;
    let label = host.split('.').next().unwrap_or_default().to_lowercase();
    let label: String = label.replace('_', "-").chars().take(63).collect();
    NodeName::new(label.trim_matches('-')).map_err(|_| {
        Problem::invalid(format!(
            "the host name {host:?} cannot be a node's name: choose one with --name"
        ))
    })
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// Equality in a time that depends on the lengths only.
pub(crate) fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y));
    a.len() == b.len() && std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::world;

    fn request(token: &TokenView, key: &str, name: &str) -> Join {
        let token: JoinToken = token.token.parse().unwrap();
        Join {
            token_id: token.id,
            token_secret: token.secret,
            key_hash: key.into(),
            name: name.into(),
            facts: berth_model::node::Facts {
                hostname: "Rack_7.example.org".into(),
                ..Default::default()
            },
            pod: None,
        }
    }

    #[test]
    fn a_token_is_good_for_its_uses_and_a_known_key_costs_none() {
        let mut w = world();
        let token = create_token(&mut w, CreateToken::default()).unwrap();
        let first = join(&mut w, &request(&token, "k1", "")).unwrap();
        assert_eq!(first.as_str(), "rack-7");
        assert_eq!(join(&mut w, &request(&token, "k1", "other")), Ok(first));
        let refused = join(&mut w, &request(&token, "k2", "n2")).unwrap_err();
        assert_eq!(refused.status, 401);
        assert!(refused.detail.contains("used up"));

        let many = CreateToken {
            uses: Some(0),
            ..CreateToken::default()
        };
        let many = create_token(&mut w, many).unwrap();
        for n in 0..5 {
            let (key, name) = (format!("m{n}"), format!("m{n}"));
            assert!(join(&mut w, &request(&many, &key, &name)).is_ok());
        }
    }

    #[test]
    fn wrong_secrets_old_tokens_and_taken_names_are_refused() {
        let mut w = world();
        let two = CreateToken {
            uses: Some(2),
            ttl: Some(Span::secs(10)),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
        };
        let token = create_token(&mut w, two).unwrap();
        let mut wrong = request(&token, "k1", "n1");
        wrong.token_secret.push('x');
        assert_eq!(join(&mut w, &wrong).unwrap_err().status, 401);
        let name = join(&mut w, &request(&token, "k1", "n1")).unwrap();
        assert_eq!(w.records.nodes[&name].all_labels()["zone"], "a");
        let clash = join(&mut w, &request(&token, "k2", "n1")).unwrap_err();
        assert_eq!(clash.status, 409);
        assert!(clash.detail.contains("berth node remove n1"));
        assert_eq!(
            join(&mut w, &request(&token, "k2", "N 1"))
                .unwrap_err()
                .status,
            422
        );
        w.wall.0 += 10_000;
        assert_eq!(
            join(&mut w, &request(&token, "k2", "n2"))
                .unwrap_err()
                .status,
            401
        );
        prune_tokens(&mut w);
        assert!(w.records.tokens.is_empty());
    }
}
