//! A real browser, without a window, driven over the DevTools protocol.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::process::BOUND;
use crate::program::Folder;

const PROGRAMS: [&str; 2] = ["chromium", "chromium-browser"];

/// The browser, if there is one here.
pub(crate) fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path);
    let candidates = places.flat_map(|place| PROGRAMS.map(|program| place.join(program)));
    candidates.into_iter().find(|program| program.is_file())
}

/// A browser with one page. It is killed when dropped.
pub(crate) struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    session: String,
    last_id: u64,
    /// Errors that the page or the browser told of.
    pub(crate) errors: Vec<String>,
    _profile: Folder,
}

impl Browser {
    pub(crate) fn start(program: PathBuf) -> Self {
        let profile = Folder::new("browser");
        let mut child = Command::new(program)
            // Its sandbox wants rights that neither root nor most containers have. The pages are ours.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking", "--hide-scrollbars"])
            .args(["--remote-debugging-port=0", &format!("--user-data-dir={}", profile.file("p"))])
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let url = debugging_url(&mut child);
        let authority = url.trim_start_matches("ws://").split('/').next().unwrap().to_owned();
        let stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let (socket, _) = tungstenite::client(url, stream).unwrap();
        let (session, errors) = (String::new(), Vec::new());
        let mut browser = Self { child, socket, session, last_id: 0, errors, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, &json!({}));
        }
        browser
    }

    /// Calls a method and gives its result.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut call = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            call["sessionId"] = self.session.clone().into();
        }
        self.socket.send(Message::text(call.to_string())).unwrap();
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("{method}: {error}"));
            let Ok(text) = message.into_text() else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let thrown = event["method"] == "Runtime.exceptionThrown";
        let logged = event["method"] == "Log.entryAdded";
        if thrown || logged && event["params"]["entry"]["level"] == "error" {
            self.errors.push(event["params"].to_string());
        }
    }

    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{opened}");
    }

    /// What an expression is in the page.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        let result = self.call("Runtime.evaluate", &params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page; what it speaks of may still be missing there.
    pub(crate) fn until(&mut self, what: &str, expression: &str) {
        let deadline = Instant::now() + BOUND;
        let body = format!("try {{ return {expression} }} catch {{ return false }}");
        let guarded = format!("(() => {{ {body} }})()");
        while self.eval(&guarded) != true {
            if Instant::now() > deadline {
                let text = self.eval("document.body.innerText");
                panic!("the page never shows {what}: {text}\n{:#?}", self.errors);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Clicks into the middle of the element, as a person would.
    pub(crate) fn click(&mut self, element: &str) {
        let script = format!(
            "(() => {{ const element = {element}; element.scrollIntoView({{ block: 'center' }}); \
             const box = element.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let at = self.eval(&script);
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// What the page looks like, in a window of this size. Kept in the folder that
    /// `MEMBERLIST_SCREENSHOTS` names, for people to look at.
    pub(crate) fn look(&mut self, name: &str, (width, height): (u32, u32), scheme: &str) {
        let mobile = width < 600;
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile
        });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
        self.eval("window.scrollTo(0, 0)");
        let fits = "document.documentElement.scrollWidth <= window.innerWidth";
        assert_eq!(self.eval(fits), true, "{name} is wider than the window");
        let shot = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let png = BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 5000, "{name}: {} bytes", png.len());
        if let Some(folder) = std::env::var_os("MEMBERLIST_SCREENSHOTS") {
            std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), png).unwrap();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the browser says that it listens. What it says later is read and dropped.
fn debugging_url(child: &mut Child) -> String {
    let said = BufReader::new(child.stderr.take().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut said_before = Vec::new();
        for line in said.lines().map_while(Result::ok) {
            match line.strip_prefix("DevTools listening on ") {
                // The receiver waits for one only, and may be gone.
                Some(url) => drop(sender.send(Ok(url.to_owned()))),
                None if said_before.len() < 100 => said_before.push(line),
                None => {}
            }
        }
        drop(sender.send(Err(said_before)));
    });
    match receiver.recv_timeout(BOUND) {
        Ok(Ok(url)) => url,
        failed => panic!("the browser does not listen: {failed:?}"),
    }
}
