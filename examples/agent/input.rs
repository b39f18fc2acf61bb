//! Standard input, as lines.
//!
//! It is read by a thread of its own: such a read cannot be given up, and must not hold up the end
//! of the process. Lines are taken one at a time, as the agent gets to them.

use std::io::{self, BufRead};
use std::thread;

use tokio::sync::mpsc;

/// The longest line that is taken, in bytes, without its end.
pub(crate) const MAX_LINE_BYTES: usize = 64 * 1024;

/// What stands between two line ends.
#[derive(Debug)]
pub(crate) enum Line {
    Text(String),
    NotUtf8,
    /// It was read over without being kept.
    TooLong,
}

/// Lines as they come, until the end of the input.
pub(crate) fn start() -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(1);
    let read = move || {
        let mut input = io::stdin().lock();
        while let Ok(Some(line)) = next_line(&mut input) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    // Without the thread there is no input, as at its end.
    let _ = thread::Builder::new().name("input".to_owned()).spawn(read);
    receiver
}

fn next_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut too_long = false;
    let mut any = false;
    loop {
        let buffer = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() && !any {
            return Ok(None);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        too_long |= line.len() + part.len() > MAX_LINE_BYTES;
        if !too_long {
            line.extend_from_slice(part);
        }
        let at_end = end.is_some() || buffer.is_empty();
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if at_end {
            break;
        }
    }
    if too_long {
        return Ok(Some(Line::TooLong));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8(line).map_or(Line::NotUtf8, Line::Text)))
}
