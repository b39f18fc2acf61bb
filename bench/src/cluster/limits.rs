//! Whether the machine has room for a run, told before it begins.

/// What the system allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files and sockets that a process may have open.
    pub open_files: u64,
    /// Ports that are given to who asks for any.
    pub ports: u64,
}

/// Sockets of one node: it listens on one of each kind, has a few of the runtime's, and some streams are
/// always under way.
const FILES_A_NODE: u64 = 6;
/// For everything else in the process.
const OTHER_FILES: u64 = 200;
/// A node's own, and of streams that wait out their last minute.
const PORTS_A_NODE: u64 = 12;

impl Limits {
    /// Of this process, which those that it starts inherit.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn of_this_process() -> Result<Self, String> {
        let read =
            |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let limits = read("/proc/self/limits")?;
        let range = read("/proc/sys/net/ipv4/ip_local_port_range")?;
        Self::parse(&limits, &range).ok_or_else(|| "the limits in /proc are not as expected".into())
    }

    fn parse(limits: &str, range: &str) -> Option<Self> {
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let open_files = match line.split_whitespace().next()? {
            "unlimited" => u64::MAX,
            number => number.parse().ok()?,
        };
        let mut ends = range.split_whitespace().map(str::parse::<u64>);
        let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
        Some(Self { open_files, ports: last.saturating_sub(first) + 1 })
    }

    /// Whether they suffice for so many nodes.
    ///
    /// # Errors
    /// What does not, with the command that raises it.
    pub fn check(&self, nodes: usize) -> Result<(), String> {
        let nodes = nodes as u64;
        let files = nodes * FILES_A_NODE + OTHER_FILES;
        if self.open_files < files {
            return Err(format!(
                "{nodes} nodes need about {files} open files, and {} are allowed; raise it with: \
                 ulimit -n {files}",
                self.open_files
            ));
        }
        let ports = nodes * PORTS_A_NODE;
        if self.ports < ports {
            return Err(format!(
                "{nodes} nodes need about {ports} ports, and {} are given out; raise it with: \
                 sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\"",
                self.ports
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
                          Max open files            1024                 4096                 files\n";

    #[test]
    fn limits_are_read_and_too_low_ones_are_told_with_the_remedy() {
        let limits = Limits::parse(LIMITS, "32768\t60999\n").expect("limits");
        assert_eq!(limits, Limits { open_files: 1024, ports: 28_232 });
        assert_eq!(limits.check(100), Ok(()));
        let error = limits.check(1000).expect_err("too few files");
        assert!(error.contains("ulimit -n 6200"), "{error}");
        let error =
            Limits { open_files: 1 << 20, ..limits }.check(5000).expect_err("too few ports");
        assert!(error.contains("ip_local_port_range"), "{error}");
        assert_eq!(
            Limits::parse(&LIMITS.replace("1024", "unlimited"), "1 2").map(|l| l.open_files),
            Some(u64::MAX)
        );
        assert_eq!(Limits::parse("", "1 2"), None);
    }

    #[test]
    fn this_machine_tells_its_limits() {
        assert!(Limits::of_this_process().is_ok_and(|limits| limits.open_files > 0));
    }
}
