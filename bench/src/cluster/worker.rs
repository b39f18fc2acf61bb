//! The program of a library, as a process that is driven and watched.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command as Process, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use memberlist_bench_fleet::protocol::{Answer, Command, Hello};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How to start the program of a library.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// How long a program may take to say what it is.
const HELLO_PATIENCE: Duration = Duration::from_secs(30);

/// Of an answer: far more than times for every node.
const MAX_LINE_BYTES: u64 = 1 << 20;
const WAITING_LINES: usize = 4;

/// A running program.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    input: ChildStdin,
    /// Its lines, as they come.
    output: Receiver<String>,
    /// What it said first.
    pub hello: Hello,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time, in the hundredths of a second that Linux counts in.
    pub processor: Duration,
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// Datagrams that left a UDP socket of its network.
    pub datagrams: u64,
    /// Bytes on its loopback device, with all headers, TCP's too.
    pub bytes: u64,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// If it does not start, or does not say what it is.
    pub fn start(program: &Program) -> Result<Self, String> {
        let say = |error: std::io::Error| format!("{}: {error}", program.path.display());
        let mut child = Process::new(&program.path)
            .args(&program.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(say)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("its input or output is not a pipe".into());
        };
        let output = lines(output);
        match read(&output, HELLO_PATIENCE) {
            Ok(hello) => Ok(Self { child, input, output, hello }),
            Err(error) => {
                // Whatever it is, it is of no use.
                let _ = child.kill().and_then(|()| child.wait());
                Err(error)
            }
        }
    }

    /// Has it do this, and gives its answer.
    ///
    /// # Errors
    /// If it could not, has ended, or does not answer in time: it is of no use any more then.
    pub fn ask(&mut self, command: &Command, patience: Duration) -> Result<Answer, String> {
        let line = serde_json::to_string(command).map_err(|error| error.to_string())?;
        writeln!(self.input, "{line}")
            .map_err(|error| format!("its process has ended: {error}"))?;
        let answer: Answer = read(&self.output, patience)?;
        match answer.error {
            Some(error) => Err(error),
            None if is_nonsense(&answer) => Err(format!("it answered nonsense: {answer:?}")),
            None => Ok(answer),
        }
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn usage(&self) -> Result<Usage, String> {
        usage_of(&self.child.id().to_string())
    }
}

/// What a process has used, by its number or `self`.
fn usage_of(process: &str) -> Result<Usage, String> {
    let read = |file: &str| {
        let path = format!("/proc/{process}/{file}");
        std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "its process has ended".to_owned(),
            _ => format!("{path}: {error}"),
        })
    };
    let usage = parse(&read("stat")?, &read("status")?, &read("net/snmp")?, &read("net/dev")?);
    usage.ok_or_else(|| "the files of its process in /proc are not as expected".into())
}

/// What goes over the loopback device when nothing is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Datagrams a second.
    pub datagrams_per_s: f64,
    /// Bytes a second.
    pub bytes_per_s: f64,
}

impl Traffic {
    /// Looks for a second.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn of_others() -> Result<Self, String> {
        let (before, began) = (usage_of("self")?, std::time::Instant::now());
        std::thread::sleep(Duration::from_secs(1));
        let (after, seconds) = (usage_of("self")?, began.elapsed().as_secs_f64());
        Ok(Self {
            datagrams_per_s: (after.datagrams - before.datagrams) as f64 / seconds,
            bytes_per_s: (after.bytes - before.bytes) as f64 / seconds,
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Reads lines on a thread of its own, until they end.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(WAITING_LINES);
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut next = || {
            let mut line = String::new();
            let read = output.by_ref().take(MAX_LINE_BYTES).read_line(&mut line);
            read.is_ok_and(|_| line.ends_with('\n')).then_some(line)
        };
        // Nobody listens after a program that was given up.
        while next().is_some_and(|line| sender.send(line).is_ok()) {}
    });
    receiver
}

fn read<T: DeserializeOwned>(output: &Receiver<String>, patience: Duration) -> Result<T, String> {
    match output.recv_timeout(patience) {
        Ok(line) => serde_json::from_str(&line).map_err(|error| format!("{error}: {line}")),
        Err(RecvTimeoutError::Disconnected) => Err("its process has ended".into()),
        Err(RecvTimeoutError::Timeout) => Err(format!("it has not answered within {patience:?}")),
    }
}

fn is_nonsense(answer: &Answer) -> bool {
    let times = answer.first_ms.iter().chain(&answer.last_ms).chain([&answer.took_ms]);
    let is_time = |time: f64| time.is_finite() && time >= 0.0;
    times.flatten().any(|time| !is_time(*time)) || answer.took_ms.is_some() && answer.missing > 0
}

fn parse(stat: &str, status: &str, snmp: &str, dev: &str) -> Option<Usage> {
    // The name in brackets may hold spaces; the times are fields 14 and 15 of the line.
    let mut times = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib: u64 = resident.split_whitespace().next()?.parse().ok()?;
    let mut udp = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let column = udp.next()?.split_whitespace().position(|name| name == "OutDatagrams")?;
    let datagrams = udp.next()?.split_whitespace().nth(column)?.parse().ok()?;
    let loopback = dev.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    // After eight columns of what was received come those of what was sent.
    let bytes = loopback.split_whitespace().nth(8)?.parse().ok()?;
    let processor = Duration::from_millis(ticks * 10);
    Some(Usage { processor, resident: resident_kib * 1024, datagrams, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_the_files_of_linux() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        let status = "Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t3\n";
        let snmp = "Udp: InDatagrams NoPorts OutDatagrams\nUdp: 7 0 9\nUdpLite: InDatagrams\n";
        let dev = "Inter-|   Receive\n    lo: 100 5 0 0 0 0 0 0 333 5 0 0 0 0 0 0\n  eth0: 1 2\n";
        let usage = parse(stat, status, snmp, dev);
        let processor = Duration::from_secs(2);
        let expected = Usage { processor, resident: 2 << 20, datagrams: 9, bytes: 333 };
        assert_eq!(usage, Some(expected));
        assert_eq!(parse("", status, snmp, dev), None);
        assert_eq!(parse(stat, "", snmp, dev), None);
    }

    #[test]
    fn a_program_that_is_none_is_told() {
        let program = |path: &str| Program { path: path.into(), args: Vec::new() };
        assert!(Worker::start(&program("/nonexistent")).is_err());
        let silent = Worker::start(&program("/bin/true"));
        assert!(silent.is_err_and(|error| error.contains("ended")));
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        let says = r#"echo '{"implementation":"x","version":"1"}'; exec sleep 600"#;
        let args = vec!["-c".into(), says.into()];
        let mut worker = Worker::start(&Program { path: "/bin/sh".into(), args }).expect("a hello");
        assert_eq!(worker.hello.implementation, "x");
        let (odd, done) = (Some(-1.0), Some(1.0));
        assert!(is_nonsense(&Answer { took_ms: odd, ..Answer::default() }));
        assert!(is_nonsense(&Answer { took_ms: done, missing: 1, ..Answer::default() }));
        assert!(!is_nonsense(&Answer { took_ms: done, ..Answer::default() }));
        let create = Command::Create { nodes: 2, encrypted: false };
        let error = worker.ask(&create, Duration::from_millis(50)).expect_err("no answer");
        assert!(error.contains("has not answered"), "{error}");
    }
}
