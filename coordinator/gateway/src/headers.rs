//! Which headers pass, which stay, which are added (RFC 9110, section 7.6).

use http::header::{
    self, CONNECTION, CONTENT_LENGTH, Entry, HOST, HeaderMap, HeaderName, HeaderValue,
};

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
const HOP_BY_HOP: [HeaderName; 8] = [
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
const KEPT: [HeaderName; 3] = [HOST, CONTENT_LENGTH, header::CONTENT_TYPE];

/// Removes what concerns one connection only, with what its `connection` header lists.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if let Entry::Occupied(connection) = headers.entry(CONNECTION) {
        let (_, values) = connection.remove_entry_mult();
        let listed: Vec<HeaderName> = values
            .flat_map(|value| {
                let tokens = value.as_bytes().split(|b| *b == b',');
                let names = tokens.map(|t| HeaderName::from_bytes(t.trim_ascii()));
                names.flatten().collect::<Vec<_>>()
            })
            .filter(|name| !KEPT.contains(name))
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
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

/// Makes a client's headers those of a request to an instance, all but `host`, which depends on the
/// instance.
pub(crate) fn to_instance(
    headers: &mut HeaderMap,
    client: &Client,
    request_id: &HeaderValue,
    prefix: Option<&str>,
    trust: bool,
) {
    strip_hop_by_hop(headers);
    // The gateway answers `100-continue` itself, as soon as the body is wanted.
    headers.remove(header::EXPECT);
    let host = headers.remove(HOST);
    if !trust {
        headers.insert(X_FORWARDED_FOR, client.addr.clone());
        headers.insert(X_FORWARDED_PROTO, client.scheme.clone());
        headers.remove(X_FORWARDED_HOST);
        headers.remove(X_FORWARDED_PREFIX);
    } else {
        let through = joined(headers, &client.addr);
        headers.insert(X_FORWARDED_FOR, through);
        let proto = headers.entry(X_FORWARDED_PROTO);
        proto.or_insert_with(|| client.scheme.clone());
    }
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
    if let Some(prefix) = prefix.and_then(|p| HeaderValue::try_from(p).ok()) {
        headers.insert(X_FORWARDED_PREFIX, prefix);
    }
    headers.insert(X_REQUEST_ID, request_id.clone());
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
        ];
        let id = HeaderValue::from_static("abc");
        let mut headers = map(&given);
        to_instance(&mut headers, &client(), &id, Some("/s/dga"), false);
        let expected = map(&[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "models.example"),
            ("x-forwarded-prefix", "/s/dga"),
            ("x-request-id", "abc"),
        ]);
        assert_eq!(headers, expected);
        let mut headers = map(&given);
        to_instance(&mut headers, &client(), &id, None, true);
        let expected = map(&[
            ("x-forwarded-for", "10.0.0.1, 10.0.0.2, 192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "front.example"),
            ("x-request-id", "abc"),
        ]);
        assert_eq!(headers, expected);
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
