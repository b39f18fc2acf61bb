//! The certificates of an agent over QUIC: which files they are in, and reading them again when they
//! change.
//!
//! Files are looked at every second. They are written one after another, and one that is half
//! written makes no sense, so they are read when from one look to the next nothing has changed. What
//! cannot be used is told once; the certificates of before stay in use, until the files change again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use memberlist::Memberlist;
use memberlist::quic::TlsConfig;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::output::Output;
use crate::report::Report;
use crate::transport::AgentTransport;

/// From one look at the files to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "QUIC; \"agent certs\" makes such files")]
pub(crate) struct TlsFlags {
    /// This node's certificate, and behind it its chain, as PEM. This file and the next two are read
    /// again when they change, and new connections use them then
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// The private key of that certificate, as PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// The certificates of the CAs whose nodes may take part, as PEM; several while one replaces
    /// another
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// A certificate speaks for the node of its first DNS name alone; --name must be the name in this
    /// node's. Set it on every node
    #[arg(long)]
    bind_name: bool,
}

/// Where the certificates are, and whose they must be.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    /// The name that this node's certificate must have, if names are bound.
    bound_name: Option<String>,
    /// What the files were like at the start, before they were read.
    at_start: Stamps,
}

/// By what a file is taken for changed: when it was, and its length. Nothing if it is not there.
type Stamp = Option<(SystemTime, u64)>;
type Stamps = [Stamp; 3];

impl TlsFlags {
    /// Whether the flags go together, and with the transport. Looks at no file.
    pub(crate) fn check(&self, quic: bool) -> Result<(), String> {
        let files = [
            ("--tls-cert", self.tls_cert.is_some()),
            ("--tls-key", self.tls_key.is_some()),
            ("--tls-ca", self.tls_ca.is_some()),
        ];
        if quic {
            return match files.iter().find(|(_, given)| !given) {
                Some((missing, _)) => Err(format!("--transport quic needs {missing}")),
                None => Ok(()),
            };
        }
        match files.iter().chain(&[("--bind-name", self.bind_name)]).find(|(_, given)| *given) {
            Some((flag, _)) => Err(format!("{flag} means nothing without --transport quic")),
            None => Ok(()),
        }
    }

    /// Each of the flags that are given, as a file of settings has them.
    pub(crate) fn each(&self, put: &mut impl FnMut(&str, toml::Value)) {
        let files =
            [("tls_cert", &self.tls_cert), ("tls_key", &self.tls_key), ("tls_ca", &self.tls_ca)];
        for (flag, file) in files {
            if let Some(file) = file {
                put(flag, file.to_string_lossy().into_owned().into());
            }
        }
        if self.bind_name {
            put("bind_name", true.into());
        }
    }

    /// The files for the node of this name, if there are all of them.
    pub(crate) fn files(&self, name: &str) -> Option<TlsFiles> {
        let mut files = TlsFiles {
            cert: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            ca: self.tls_ca.clone()?,
            bound_name: self.bind_name.then(|| name.to_owned()),
            at_start: Stamps::default(),
        };
        files.at_start = files.stamps();
        Some(files)
    }
}

impl TlsFiles {
    /// Reads and checks them.
    pub(crate) fn load(&self) -> Result<TlsConfig, String> {
        let tls = TlsConfig::from_pem_files(&self.cert, &self.key, &self.ca)
            .map_err(|error| error.to_string())?;
        let Some(name) = &self.bound_name else { return Ok(tls) };
        let cert = self.cert.display();
        let tls = tls.bind_names(true).map_err(|error| format!("{cert}: {error}"))?;
        match tls.bound_name() {
            Some(found) if **found != **name => Err(format!(
                "--bind-name: the certificate in {cert} is for {found:?}, and this node is {name:?}"
            )),
            _ => Ok(tls),
        }
    }

    fn stamps(&self) -> Stamps {
        let stamp = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        [stamp(&self.cert), stamp(&self.key), stamp(&self.ca)]
    }
}

/// Reads the files again, for a node that runs.
pub(crate) struct Reloader<T: AgentTransport> {
    node: Memberlist<T>,
    files: Arc<TlsFiles>,
    /// What the files were like when they were last read. Held meanwhile: one attempt at a time.
    read: Mutex<Stamps>,
}

impl<T: AgentTransport> Reloader<T> {
    /// For files that were read just now, to start the node.
    pub(crate) fn new(node: Memberlist<T>, files: TlsFiles) -> Self {
        let read = Mutex::new(files.at_start);
        Self { node, files: Arc::new(files), read }
    }

    /// Uses what is in the files now, or goes on with what there was.
    pub(crate) async fn reload(&self) -> Report {
        let mut read = self.read.lock().await;
        let files = Arc::clone(&self.files);
        // A disk, or a network behind it, may be slow.
        let loaded = spawn_blocking(move || (files.stamps(), files.load())).await;
        let outcome = match loaded {
            Ok((stamps, tls)) => {
                *read = stamps;
                tls.and_then(|tls| self.node.transport().reload_tls(tls))
            }
            Err(_) => Err("the files could not be read".to_owned()),
        };
        let cert = self.files.cert.display().to_string();
        Report::Tls { reloaded: outcome.is_ok(), cert, error: outcome.err() }
    }

    /// Reloads whenever the files have changed, and reports it. Never ends.
    pub(crate) async fn watch(&self, output: Output) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = *self.read.lock().await;
        loop {
            looks.tick().await;
            let files = Arc::clone(&self.files);
            let Ok(now) = spawn_blocking(move || files.stamps()).await else { continue };
            let changed = now != *self.read.lock().await;
            if changed && now == before {
                output.tell(self.reload().await).await;
            }
            before = now;
        }
    }
}
