//! A client for the agent's HTTP: one request a connection, in the version that has no chunks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{BOUND, Process};
use crate::program::program;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// A header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Starts an agent that serves a page, and gives where.
pub(crate) fn start(name: &'static str, more: &[&str]) -> (Process, String) {
    let mut command = Command::new(program());
    command.args(["--name", name, "--bind", "127.0.0.1:0", "--json", "--preset", "local"]);
    command.args(["--http", "127.0.0.1:0"]).args(more).env_remove("RUST_LOG");
    let (agent, ready) = Process::spawn_with(name, command);
    (agent, ready["http"].as_str().unwrap().to_owned())
}

pub(crate) fn connect(at: &str) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

pub(crate) fn get(at: &str, path: &str) -> Answer {
    request(at, &format!("GET {path} HTTP/1.0\r\n\r\n"))
}

/// Sends this and reads until the connection ends.
pub(crate) fn request(at: &str, text: &str) -> Answer {
    let mut stream = connect(at);
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Answer { status: status_of(head), head: head.to_owned(), body: body.to_owned() }
}

fn status_of(head: &str) -> u16 {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {head:?}"))
}

/// Asks again until the answer fits.
pub(crate) fn until(at: &str, path: &str, what: &str, fits: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + BOUND;
    loop {
        let answer = get(at, path);
        if fits(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path} never shows {what}: {}", answer.body);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A stream of server-sent events.
pub(crate) struct Events(BufReader<TcpStream>);

impl Events {
    /// Or the status by which it was refused.
    pub(crate) fn open(at: &str) -> Result<Self, u16> {
        let mut stream = connect(at);
        stream.write_all(b"GET /events HTTP/1.0\r\n\r\n").unwrap();
        let (mut reader, mut head) = (BufReader::new(stream), String::new());
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        match status_of(&head) {
            200 => {
                assert!(head.contains("content-type: text/event-stream"), "{head}");
                Ok(Self(reader))
            }
            status => Err(status),
        }
    }

    /// The next event with its data; nothing at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<(String, Value)> {
        let (mut kind, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end_matches('\n').split_once(": ") {
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("data", value)) => data.push_str(value),
                Some(_) => {}
                None => return Some((kind, serde_json::from_str(&data).unwrap())),
            }
        }
    }

    /// The first event that fits.
    pub(crate) fn wait(&mut self, what: &str, fits: impl Fn(&str, &Value) -> bool) -> Value {
        let deadline = Instant::now() + BOUND;
        while Instant::now() < deadline {
            let (kind, data) = self.next().unwrap_or_else(|| panic!("it ended before {what}"));
            if fits(&kind, &data) {
                return data;
            }
        }
        panic!("{what} never came");
    }
}
