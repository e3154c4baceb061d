//! Which headers pass, which stay, which are added (RFC 9110, section 7.6).

use http::header::{self, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
pub(crate) const BERTH_SERVICE: HeaderName = HeaderName::from_static("berth-service");
pub(crate) const BERTH_REVISION: HeaderName = HeaderName::from_static("berth-revision");
pub(crate) const BERTH_INSTANCE: HeaderName = HeaderName::from_static("berth-instance");
pub(crate) const BERTH_ERROR: HeaderName = HeaderName::from_static("berth-error");

/// Hop-by-hop by name. `transfer-encoding` is decoded on one side and chosen anew on the other, so
/// what a client writes there never reaches an instance.
static HOP_BY_HOP: [HeaderName; 8] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Headers that a `connection` header cannot remove: without them the message would mean another one.
static KEPT: [HeaderName; 3] = [HOST, CONTENT_LENGTH, header::CONTENT_TYPE];

/// Whether a header concerns one connection only, by its name.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == CONNECTION || HOP_BY_HOP.contains(name)
}

/// The names that the `connection` headers list, but for those without which the message would mean
/// another one.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        // By far the most frequent, and not the names of headers that are anything else.
        .filter(|token| !token.eq_ignore_ascii_case(b"keep-alive") && *token != b"close")
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !KEPT.contains(name))
        .collect()
}

/// Removes what concerns one connection only, with what its `connection` header lists. A removal costs a
/// look-up, so only what a look at the names has found is removed.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut connection = false;
    let mut found = [false; HOP_BY_HOP.len()];
    for name in headers.keys() {
        connection |= *name == CONNECTION;
        for (found, known) in found.iter_mut().zip(&HOP_BY_HOP) {
            *found |= name == known;
        }
    }
    if connection {
        for name in listed(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for (name, _) in HOP_BY_HOP.iter().zip(found).filter(|(_, found)| *found) {
        headers.remove(name);
    }
}

/// What a connection says of its client.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Its address as a header value.
    pub(crate) addr: HeaderValue,
    /// `http` or `https`.
    pub(crate) scheme: HeaderValue,
}

/// What the gateway says of a request to the instance.
pub(crate) struct Said<'a> {
    pub(crate) client: &'a Client,
    pub(crate) request_id: &'a HeaderValue,
    /// What the path lost.
    pub(crate) prefix: Option<HeaderValue>,
    /// Whether the client's own `x-forwarded-*` are believed.
    pub(crate) trust: bool,
}

impl Said<'_> {
    /// Fills `out`, which is empty, with the headers of a request to an instance: the client's `given`
    /// without what concerns its connection, and the gateway's own.
    pub(crate) fn to_instance(&self, given: &HeaderMap, host: &HeaderValue, out: &mut HeaderMap) {
        out.reserve(given.len() + 6);
        let listed = listed(given);
        for (name, value) in given {
            let replaced = match name {
                // The gateway answers `100-continue` itself, as soon as the body is wanted.
                name if *name == HOST || *name == header::EXPECT || *name == X_REQUEST_ID => true,
                name if *name == X_FORWARDED_FOR => true,
                name if is_forwarded(name) => !self.trust,
                name => is_hop_by_hop(name) || listed.contains(name),
            };
            if !replaced {
                out.append(name, value.clone());
            }
        }
        out.insert(HOST, host.clone());
        out.insert(X_REQUEST_ID, self.request_id.clone());
        if self.trust {
            out.insert(X_FORWARDED_FOR, joined(given, &self.client.addr));
            let proto = out.entry(X_FORWARDED_PROTO);
            proto.or_insert_with(|| self.client.scheme.clone());
        } else {
            out.insert(X_FORWARDED_FOR, self.client.addr.clone());
            out.insert(X_FORWARDED_PROTO, self.client.scheme.clone());
        }
        if let Some(host) = given.get(HOST) {
            out.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
        }
        if let Some(prefix) = &self.prefix {
            out.insert(X_FORWARDED_PREFIX, prefix.clone());
        }
    }
}

fn is_forwarded(name: &HeaderName) -> bool {
    [X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PREFIX].contains(name)
}

/// The list of `x-forwarded-for` so far, with `addr` at its end.
fn joined(headers: &HeaderMap, addr: &HeaderValue) -> HeaderValue {
    let mut list = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(addr.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(list)).unwrap_or_else(|_| addr.clone())
}

/// The client's `x-request-id`, if it is one that logs can carry.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    const MAX: usize = 128;
    let given = headers.get(X_REQUEST_ID)?;
    let fine =
        (1..=MAX).contains(&given.len()) && given.as_bytes().iter().all(u8::is_ascii_graphic);
    fine.then(|| given.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn client() -> Client {
        Client {
            addr: HeaderValue::from_static("192.0.2.7"),
            scheme: HeaderValue::from_static("http"),
        }
    }

    #[test]
    fn listed_headers_go_and_essential_ones_stay() {
        let mut headers = map(&[
            ("connection", "close, X-Private ,, content-length"),
            ("connection", "host, te"),
            ("x-private", "1"),
            ("content-length", "5"),
            ("host", "h"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("traceparent", "00-1-2-03"),
        ]);
        strip_hop_by_hop(&mut headers);
        let expected = map(&[
            ("content-length", "5"),
            ("host", "h"),
            ("traceparent", "00-1-2-03"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn forwarding_headers_are_replaced_or_extended() {
        let given = [
            ("host", "models.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "front.example"),
            ("expect", "100-continue"),
            ("accept", "a"),
            ("accept", "b"),
            ("connection", "close, x-private, accept-ranges"),
            ("x-private", "1"),
            ("te", "trailers"),
        ];
        let id = HeaderValue::from_static("abc");
        let made = |prefix: Option<&'static str>, trust| {
            let said = Said {
                client: &client(),
                request_id: &id,
                prefix: prefix.map(HeaderValue::from_static),
                trust,
            };
            let mut out = HeaderMap::new();
            said.to_instance(
                &map(&given),
                &HeaderValue::from_static("1.2.3.4:5"),
                &mut out,
            );
            out
        };
        let expected = map(&[
            ("accept", "a"),
            ("accept", "b"),
            ("host", "1.2.3.4:5"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "models.example"),
            ("x-forwarded-prefix", "/s/dga"),
            ("x-request-id", "abc"),
        ]);
        assert_eq!(made(Some("/s/dga"), false), expected);
        let expected = map(&[
            ("accept", "a"),
            ("accept", "b"),
            ("host", "1.2.3.4:5"),
            ("x-forwarded-for", "10.0.0.1, 10.0.0.2, 192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "front.example"),
            ("x-request-id", "abc"),
        ]);
        assert_eq!(made(None, true), expected);
    }

    #[test]
    fn odd_request_ids_are_not_passed_on() {
        let id = |text: &str| request_id(&map(&[("x-request-id", text)]));
        assert_eq!(id("a-1"), Some(HeaderValue::from_static("a-1")));
        assert_eq!(id(""), None);
        assert_eq!(id("a b"), None);
        assert_eq!(id(&"a".repeat(129)), None);
    }

    proptest! {
        #[test]
        fn nothing_hop_by_hop_is_left(
            listed in "[a-zA-Z, -]{0,30}",
            names in proptest::collection::vec("[a-z][a-z-]{0,10}", 0..8),
        ) {
            let mut headers = HeaderMap::new();
            headers.append(CONNECTION, HeaderValue::from_str(&listed).unwrap());
            for name in names.iter().map(String::as_str).chain(["te", "upgrade", "host"]) {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("v"));
            }
            strip_hop_by_hop(&mut headers);
            prop_assert!(headers.contains_key(HOST));
            prop_assert!(!headers.contains_key(CONNECTION));
            for name in &HOP_BY_HOP {
                prop_assert!(!headers.contains_key(name));
            }
            for token in listed.split(',').map(|t| t.trim().to_ascii_lowercase()) {
                let kept = KEPT.iter().any(|k| k.as_str() == token);
                prop_assert!(token.is_empty() || kept || !headers.contains_key(&*token));
            }
        }
    }
}
