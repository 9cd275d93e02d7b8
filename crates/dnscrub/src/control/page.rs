//! The status page's files, and the playbooks it leads to. They hold no data: the page asks for that, and sends the token
//! where one is wanted.

mod playbooks;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

/// A file of the page.
struct File {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! file {
    ($path:literal, $name:literal, $media_type:expr) => {
        File {
            path: $path,
            media_type: $media_type,
            text: include_str!(concat!("page/", $name)),
        }
    };
}

/// All of them.
const FILES: [File; 13] = [
    file!("/", "index.html", HTML),
    file!("/page/page.css", "page.css", CSS),
    file!("/page/icon.svg", "icon.svg", SVG),
    file!("/page/main.js", "main.js", SCRIPT),
    file!("/page/api.js", "api.js", SCRIPT),
    file!("/page/dom.js", "dom.js", SCRIPT),
    file!("/page/text.js", "text.js", SCRIPT),
    file!("/page/chart.js", "chart.js", SCRIPT),
    file!("/page/now.js", "now.js", SCRIPT),
    file!("/page/policy.js", "policy.js", SCRIPT),
    file!("/page/incidents.js", "incidents.js", SCRIPT),
    file!("/page/incident.js", "incident.js", SCRIPT),
    file!("/page/blocklist.js", "blocklist.js", SCRIPT),
];

/// What a browser is to keep from it: nothing comes from elsewhere, nothing inline runs, no page
/// frames it, no string becomes markup.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // kept, but asked for each time: another version may run by then
    (header::CACHE_CONTROL, "no-cache"),
];

/// Serves them.
pub(super) fn router() -> Router {
    let files = FILES.iter().fold(Router::new(), |router, file| {
        serve(router, file.path, file.media_type, file.text)
    });
    playbooks::all().fold(files, |router, playbook| {
        serve(router, &playbook.path(), HTML, playbook.page())
    })
}

fn serve(router: Router, path: &str, media_type: &'static str, text: impl Into<Bytes>) -> Router {
    let text = text.into();
    let tag = tag(&text);
    let answer = move |headers: HeaderMap| async move { answer(media_type, text, &tag, &headers) };
    router.route(path, get(answer))
}

/// The text's digest as an entity tag (RFC 9110, section 8.8.3).
fn tag(text: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn answer(media_type: &'static str, text: Bytes, tag: &str, asked: &HeaderMap) -> Response {
    let known = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        text.into_response()
    };
    let headers = response.headers_mut();
    if !known {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_is_named_is_there_and_nothing_comes_from_elsewhere() {
        for file in &FILES {
            for quoted in file.text.split(['"', '\'']) {
                if let Some(name) = quoted.strip_prefix("./") {
                    let path = format!("/page/{name}");
                    assert!(
                        FILES.iter().any(|file| file.path == path),
                        "{}: {name}",
                        file.path
                    );
                }
                if quoted.starts_with("/page/") {
                    assert!(
                        FILES.iter().any(|file| file.path == quoted),
                        "{}: {quoted}",
                        file.path
                    );
                }
            }
            let namespaces = file.text.replace("http://www.w3.org/", "");
            for outside in ["http:", "https:", "//cdn", "url(", "innerHTML", "eval("] {
                assert!(!namespaces.contains(outside), "{}: {outside}", file.path);
            }
        }
        let index = FILES[0].text;
        for inline in [" style=", " onclick=", " onload=", "<style", "<script>"] {
            assert!(!index.contains(inline), "{inline}");
        }
    }

    #[test]
    fn a_file_is_sent_once() {
        let file = &FILES[0];
        let text = Bytes::from_static(file.text.as_bytes());
        let tag = tag(&text);
        let fresh = answer(file.media_type, text.clone(), &tag, &HeaderMap::new());
        assert_eq!(fresh.status(), StatusCode::OK);
        assert_eq!(fresh.headers()[header::CONTENT_TYPE], HTML);
        assert_eq!(fresh.headers()[header::ETAG], tag.as_str());
        let mut asked = HeaderMap::new();
        let known = format!("\"other\", W/{tag}");
        asked.insert(
            header::IF_NONE_MATCH,
            HeaderValue::from_str(&known).unwrap(),
        );
        let again = answer(file.media_type, text, &tag, &asked);
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(
            again.headers()[header::CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .starts_with("default-src 'none'")
        );
    }
}
