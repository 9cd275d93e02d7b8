//! Who may do what over HTTP.
//!
//! With a token, those who send it may do everything. Without one, which the configuration allows on
//! loopback only, everybody on this machine may look and nobody may change anything. What a browser on this machine
//! is made to send by a page from elsewhere is refused: such a page can neither name an address of its own
//! that leads here (the `Host` header tells), nor have its requests taken for the status page's (`Sec-Fetch-Site`
//! tells).

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};

use super::api::Failure;
use super::server::{Refusal, failed};

/// The router, but only for those who may.
pub(super) fn guarded(router: Router, token: Option<&str>) -> Router {
    let token: Option<Arc<str>> = token.map(Into::into);
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let token = token.clone();
        async move {
            let judged = match &token {
                Some(token) => bears(request.headers(), token),
                None => looks_from_here(request.method(), request.headers()),
            };
            match judged {
                Ok(()) => next.run(request).await,
                Err(refusal) => refused(refusal),
            }
        }
    }))
}

fn refused(refusal: Refusal) -> Response {
    let wants_token = refusal.status == StatusCode::UNAUTHORIZED;
    let mut response = refusal.into_response();
    if wants_token {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn bears(headers: &HeaderMap, token: &str) -> Result<(), Refusal> {
    let sent = headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    if sent
        .and_then(bearer)
        .is_some_and(|sent| equal(sent, token.as_bytes()))
    {
        return Ok(());
    }
    let failure = Failure::new("the token is missing or wrong").with_hint(
        "send the first line of `control.http.token-file` as \"Authorization: Bearer TOKEN\"",
    );
    Err(failed(StatusCode::UNAUTHORIZED, failure))
}

/// Whether it is a look, and from a page of ours or from no page at all.
fn looks_from_here(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let forbidden = |error: &str, hint: &str| {
        Err(failed(
            StatusCode::FORBIDDEN,
            Failure::new(error).with_hint(hint),
        ))
    };
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    if !host.is_some_and(is_loopback) {
        return forbidden(
            "the address asked for is none of this machine's own",
            "go to http://127.0.0.1:PORT/ or http://localhost:PORT/; for any other name set `control.http.token-file`",
        );
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        return forbidden(
            "a page from elsewhere asks for this",
            "open the status page by its own address",
        );
    }
    if method != Method::GET && method != Method::HEAD {
        return forbidden(
            "without a token nothing can be changed over HTTP",
            "set `control.http.token-file`, or use the control socket, as the commands do",
        );
    }
    Ok(())
}

/// Whether a `Host` header names this machine by an address on loopback or as `localhost`, so that no name server
/// was asked on the way here.
fn is_loopback(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    bare.parse()
        .is_ok_and(|address: IpAddr| address.is_loopback())
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Takes as long whatever the first difference is, so that a token cannot be guessed octet by octet.
/// Its length is no secret.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (one, other)| {
        std::hint::black_box(difference | (one ^ other))
    });
    one.len() == other.len() && difference == 0 && !other.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(equal(b"secret", b"secret"));
        for (sent, token) in [
            ("secre", "secret"),
            ("secrets", "secret"),
            ("Secret", "secret"),
            ("", ""),
        ] {
            assert!(!equal(sent.as_bytes(), token.as_bytes()), "{sent} {token}");
        }
    }

    #[test]
    fn only_names_that_need_no_name_server_are_this_machine() {
        for here in [
            "127.0.0.1",
            "127.0.0.1:9354",
            "127.8.9.10:1",
            "localhost",
            "LocalHost:80",
            "[::1]",
            "[::1]:9354",
        ] {
            assert!(is_loopback(here.as_bytes()), "{here}");
        }
        for elsewhere in [
            "",
            ":80",
            "evil.example",
            "127.0.0.1.evil.example:9354",
            "localhost.evil.example",
            "localhost.",
            "192.0.2.1",
            "[::2]:80",
            "[127.0.0.1",
            "127.0.0.1:80:80",
            "127.1",
            "0.0.0.0:9354",
        ] {
            assert!(!is_loopback(elsewhere.as_bytes()), "{elsewhere}");
        }
        assert!(!is_loopback(b"\xff"));
    }

    #[test]
    fn a_page_from_elsewhere_does_not_look_and_nobody_changes_anything() {
        let judge = |method: Method, headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| {
                    (
                        header::HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                })
                .collect();
            looks_from_here(&method, &headers)
                .map_err(|refusal| refusal.failure.error)
                .err()
                .unwrap_or_default()
        };
        let host = ("host", "127.0.0.1:9354");
        assert_eq!(judge(Method::GET, &[host]), "");
        assert_eq!(
            judge(Method::GET, &[host, ("sec-fetch-site", "same-origin")]),
            ""
        );
        assert_eq!(judge(Method::HEAD, &[host, ("sec-fetch-site", "none")]), "");
        assert!(
            judge(Method::GET, &[host, ("sec-fetch-site", "cross-site")]).contains("elsewhere")
        );
        assert!(judge(Method::GET, &[("host", "evil.example")]).contains("none of this machine"));
        assert!(judge(Method::GET, &[]).contains("none of this machine"));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(judge(method, &[host]).contains("nothing can be changed"));
        }
    }
}
