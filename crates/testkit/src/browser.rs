//! A real browser: Debian's Chromium without a window, driven by its DevTools protocol.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process;

const CHROMIUM: &str = "/usr/bin/chromium";
/// How long the browser may take for a command, and a page for what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to end when asked politely.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a page.
const POLL: Duration = Duration::from_millis(50);
/// It is spoken to over its standard input and output, which it wants as descriptors 3 and 4; each message ends
/// with a zero octet.
const OVER_PIPES: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2";
const FLAGS: [&str; 14] = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
];

/// A running Chromium with a fresh profile and one page. It ends when this is dropped, and when the test
/// process dies.
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    next: u64,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts Debian's Chromium (package `chromium`) with a window of 1280 by 900.
    ///
    /// # Panics
    /// It is not installed, or does not start.
    #[must_use]
    pub fn start() -> Self {
        let profile = tempfile::Builder::new()
            .prefix("dnscrub-test-")
            .tempdir()
            .expect("a temporary folder");
        assert!(
            Path::new(CHROMIUM).exists(),
            "{CHROMIUM} is not there: install the Debian package chromium"
        );
        // what is run is a shell, which puts the descriptors in place
        let mut command = process::bounded_command("/bin/sh", "dash");
        command
            .args(["-c", OVER_PIPES, CHROMIUM])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .env("TZ", "UTC")
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = process::start(command);
        let orders = child.stdin.take().expect("its standard input is a pipe");
        let answers = child.stdout.take().expect("its standard output is a pipe");
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0) {
                let message = message.ok().and_then(|it| serde_json::from_slice(&it).ok());
                let Some(message) = message else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            orders,
            messages,
            session: String::new(),
            next: 1,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.order("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.order(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        );
        attached["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.order(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1280, 900);
        browser
    }

    /// Goes to an address.
    ///
    /// # Panics
    /// There is nothing.
    pub fn open(&mut self, address: &str) {
        let answer = self.order("Page.navigate", json!({ "url": address }));
        assert!(answer.get("errorText").is_none(), "{address}: {answer}");
    }

    /// The value of a JavaScript expression in the page, awaited if it is a promise.
    ///
    /// # Panics
    /// It throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.order(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }),
        );
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true; one that throws is not.
    ///
    /// # Panics
    /// It is not within a minute; the message has the page's text.
    pub fn wait_for(&mut self, condition: &str) {
        let end = Instant::now() + PATIENCE;
        let guarded = format!(
            "(() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }})()"
        );
        while self.evaluate(&guarded) != true {
            assert!(
                Instant::now() < end,
                "waited in vain for {condition} in\n{}\n{:?}",
                self.evaluate("document.body.innerText"),
                self.complaints
            );
            std::thread::sleep(POLL);
        }
    }

    /// The page as a window of this size shows it, in CSS pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        self.order(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 }),
        );
    }

    /// Whether whoever looks prefers dark colours.
    pub fn prefer_dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        self.order(
            "Emulation.setEmulatedMedia",
            json!({ "features": [ { "name": "prefers-color-scheme", "value": value } ] }),
        );
    }

    /// Whether the network is gone, as the page sees it.
    pub fn offline(&mut self, offline: bool) {
        self.order(
            "Network.emulateNetworkConditions",
            json!({ "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 }),
        );
    }

    /// Presses and releases a key, such as `Tab`.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            _ => 0,
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            self.order(
                "Input.dispatchKeyEvent",
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text }),
            );
        }
    }

    /// Types text where the focus is.
    pub fn type_text(&mut self, text: &str) {
        self.order("Input.insertText", json!({ "text": text }));
    }

    /// Writes the whole page as a PNG file.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn photograph(&mut self, file: &Path) {
        let shot = self.order(
            "Page.captureScreenshot",
            json!({ "format": "png", "captureBeyondViewport": true }),
        );
        let text = shot["data"].as_str().expect("a picture");
        fs::write(file, base64(text)).expect("the file can be written");
    }

    /// What the page's console and the browser's own log complained of so far: errors, exceptions, what the
    /// page's security policy refused.
    pub fn complaints(&mut self) -> Vec<String> {
        // an order's answer comes after what was said before it
        self.order("Runtime.getIsolateId", json!({}));
        self.complaints.clone()
    }

    /// Sends an order and waits for its answer.
    fn order(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let mut order = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            order["sessionId"] = json!(self.session);
        }
        let mut text = order.to_string().into_bytes();
        text.push(0);
        self.orders
            .write_all(&text)
            .and_then(|()| self.orders.flush())
            .expect("the browser listens");
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(message) = self.messages.recv_timeout(left) else {
                panic!("{method}: the browser does not answer within {PATIENCE:?}");
            };
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.hear(&message);
        }
    }

    fn hear(&mut self, message: &Value) {
        let said = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(said.to_string()),
            Some("Runtime.consoleAPICalled") if said["type"] == "error" => {
                self.complaints.push(said["args"].to_string());
            }
            Some("Log.entryAdded") if said["entry"]["level"] == "error" => {
                self.complaints.push(said["entry"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        process::signal(&mut self.child, libc::SIGTERM);
        if process::wait(&mut self.child, END_PATIENCE).is_none() {
            process::signal(&mut self.child, libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// What was written in Base64 (RFC 4648, section 4).
fn base64(text: &str) -> Vec<u8> {
    let digit = |octet: u8| match octet {
        b'A'..=b'Z' => Some(u32::from(octet - b'A')),
        b'a'..=b'z' => Some(u32::from(octet - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(octet - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).collect();
    let mut octets = Vec::with_capacity(digits.len() / 4 * 3);
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        octets.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (text, octets) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text), octets.as_bytes());
        }
    }
}
