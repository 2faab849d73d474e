//! A headless Chromium that is told what to do over a pipe, in the Chrome DevTools Protocol: no port, no driver program.
//!
//! Everything the page asks for and everything the browser complains about is kept, so that a test can say that there was
//! nothing else.

use crate::lab::Netns;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Programs that will do, by preference: the first one is Chromium without what draws on a screen.
const PROGRAMS: &[&str] = &["chromium-headless-shell", "chromium"];

/// Longest that an answer of the browser or something on a page may take. Long, because a loaded machine is no bug.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a page is asked whether something is there.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A browser with one page. Ended when dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    requests: Vec<String>,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one inside `netns`; `None` if there is none on this machine.
    ///
    /// # Panics
    /// If it is there and does not start.
    #[must_use]
    pub fn start(netns: &Netns) -> Option<Self> {
        let program = PROGRAMS.iter().find(|program| is_installed(program))?;
        let profile = TempDir::with_prefix("palisade-browser-").expect("a temporary directory can be made");
        // The browser reads from 3 and writes to 4.
        let mut command = netns.command("sh");
        command.args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, program]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        // Tests run as root, where the sandbox refuses to; and in containers with little shared memory.
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]);
        command.args([
            "--disable-background-networking",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            "about:blank",
        ]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("start {program}: {error}"));
        let input = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let (requests, complaints) = (Vec::new(), Vec::new());
        let mut browser = Self {
            child,
            input,
            messages,
            session: None,
            last_id: 0,
            requests,
            complaints,
            _profile: profile,
        };
        let targets = browser.call("Target.getTargets", &json!({}));
        let target = &targets["targetInfos"][0]["targetId"];
        let attached = browser.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime", "Log", "Network", "Page", "Audits"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    /// Gives the page a size in points, as a phone's or not.
    pub fn size(&mut self, width: u32, height: u32, is_phone: bool) {
        let scale = if is_phone { 2 } else { 1 };
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Has the system prefer dark colours, or light ones.
    pub fn dark(&mut self, is_dark: bool) {
        let value = if is_dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Opens an address.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
    }

    /// Presses and releases a key that writes a character.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", &json!({ "type": kind, "key": key, "text": key }));
        }
    }

    /// What an expression gives, promises waited for.
    ///
    /// # Panics
    /// If it throws.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let options = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut said = self.call("Runtime.evaluate", &options);
        assert!(said.get("exceptionDetails").is_none(), "{expression}: {said:#}");
        said["result"].get_mut("value").map_or(Value::Null, Value::take)
    }

    /// The same, waiting until `is_there` is satisfied; what it gave then.
    ///
    /// # Panics
    /// If that does not happen within a minute: with what the page shows.
    #[track_caller]
    pub fn until(&mut self, what: &str, expression: &str, is_there: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.evaluate(expression);
            if is_there(&value) {
                return value;
            }
            if Instant::now() > deadline {
                let text = self.evaluate("document.body.innerText");
                panic!(
                    "no {what}: {expression} is {value}\n{}\n{:#?}",
                    text.as_str().unwrap_or(""),
                    self.complaints
                );
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Draws the page as it is into a file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn screenshot(&mut self, path: &Path) {
        let said = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let data = said["data"].as_str().unwrap_or_default();
        std::fs::write(path, base64(data))
            .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }

    /// Every address that was asked for so far.
    #[must_use]
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    /// Every error and warning of page and browser so far: exceptions, the console, the content security policy.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Forgets that the browser complained of answers with this status: a page that asked for something wrong got them.
    pub fn forgive_status(&mut self, status: u16) {
        let said = format!("responded with a status of {status} ");
        self.complaints.retain(|complaint| !complaint.contains(&said));
    }

    /// Forgets complaints: those that come now are expected.
    pub fn forgive(&mut self) {
        self.complaints.clear();
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.input.write_all(&text).unwrap_or_else(|error| panic!("{method}: the browser is gone: {error}"));
        loop {
            let said = self.messages.recv_timeout(PATIENCE);
            let mut said =
                said.unwrap_or_else(|error| panic!("{method}: the browser does not answer: {error}"));
            if said["id"] == id {
                assert!(said.get("error").is_none(), "{method}: {said:#}");
                return said["result"].take();
            }
            self.note(&said);
        }
    }

    fn note(&mut self, said: &Value) {
        let params = &said["params"];
        match said["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                self.requests.extend(params["request"]["url"].as_str().map(str::to_owned));
            }
            "Runtime.exceptionThrown" | "Audits.issueAdded" => self.complaints.push(params.to_string()),
            "Runtime.consoleAPICalled" if params["type"] != "log" => self.complaints.push(params.to_string()),
            "Log.entryAdded" if matches!(params["entry"]["level"].as_str(), Some("error" | "warning")) => {
                self.complaints.push(params["entry"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_installed(program: &str) -> bool {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&dirs).any(|dir| dir.join(program).is_file())
}

/// Bytes of base64 text; what is no such digit ends it.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut word, mut bits) = (Vec::new(), 0_u32, 0_u32);
    for value in text.bytes().map_while(digit) {
        word = word << 6 & 0xffff | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits).to_le_bytes()[0]);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmFy", b"foobar"),
            ("/+8=", b"\xff\xef"),
        ] {
            assert_eq!(base64(text), bytes, "{text}");
        }
    }
}
