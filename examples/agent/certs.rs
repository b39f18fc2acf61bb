//! Certificates for development: a CA, and a certificate for each node.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use memberlist::NodeId;
use memberlist::quic::{ClusterCa, TlsConfig, TlsError};

/// Makes certificates for development, in files: a CA, or the one that is there already, and of it a
/// certificate for each node, valid for 90 days. Who has ca.key can let anybody in: it is needed to
/// make more certificates, not by the nodes.
#[derive(Parser, Debug)]
#[command(name = "agent certs")]
pub(crate) struct Certs {
    /// The folder for ca.pem, ca.key, and NAME.pem and NAME.key of each node; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// The names of the nodes, which are also the names in their certificates
    #[arg(long = "name", value_name = "NAME", num_args = 1.., required = true)]
    names: Vec<String>,

    /// Write the nodes' files anew if they are there already; the CA stays the same
    #[arg(long)]
    force: bool,
}

/// The CA's name among those of the files.
const CA: &str = "ca";

/// A file to write.
struct Pem {
    path: PathBuf,
    text: String,
    /// Whether only its owner may read it.
    secret: bool,
}

impl Certs {
    /// Whether each name can be a node's, a file's and a certificate's.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        for name in &self.names {
            let named = |why: &str| Err(format!("--name {name:?}: {why}"));
            NodeId::new(name).map_err(|error| format!("--name: {error}"))?;
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if !name.chars().all(allowed) || name.starts_with('.') {
                return named("a name in a certificate is of letters, digits, \"-\", \"_\", \".\"");
            }
            if name.parse::<IpAddr>().is_ok() {
                return named("an IP address is no name in a certificate");
            }
            // Files may be the same for upper and lower case.
            let file = name.to_ascii_lowercase();
            if file == CA {
                return named("the files of this name are the CA's");
            }
            if !seen.insert(file) {
                return named("it is given twice, or differs from another by upper case only");
            }
        }
        Ok(())
    }

    /// Makes them, writes them if all could be made, and prints what was written.
    pub(crate) fn make(&self) -> Result<ExitCode, String> {
        fs::create_dir_all(&self.out).map_err(|error| at(&self.out, &error))?;
        if !self.force {
            self.refuse_to_overwrite()?;
        }
        let (ca, mut pems) = match self.found_ca()? {
            Some(ca) => {
                print(&format!("used   {}", self.file(CA, "pem").display()))?;
                (ca, Vec::new())
            }
            None => {
                let ca = TlsConfig::cluster_ca().map_err(|error| error.to_string())?;
                let pems = self.pems(CA, ca.cert_pem(), ca.key_pem());
                (ca, pems.into())
            }
        };
        for name in &self.names {
            pems.extend(self.issue(&ca, name)?);
        }
        for pem in &pems {
            pem.write(self.force).map_err(|error| at(&pem.path, &error))?;
            print(&format!("wrote  {}", pem.path.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        // Not `with_extension`: names may have dots.
        self.out.join(format!("{name}.{extension}"))
    }

    /// The key first: with it alone nothing is believed to be complete.
    fn pems(&self, name: &str, cert: &str, key: &str) -> [Pem; 2] {
        let pem = |extension, text: &str, secret| {
            let path = self.file(name, extension);
            Pem { path, text: text.to_owned(), secret }
        };
        [pem("key", key, true), pem("pem", cert, false)]
    }

    fn refuse_to_overwrite(&self) -> Result<(), String> {
        let files = self.names.iter().flat_map(|name| ["pem", "key"].map(|e| self.file(name, e)));
        match files.into_iter().find(|file| file.symlink_metadata().is_ok()) {
            Some(file) => {
                Err(format!("{} is there already; --force writes it anew", file.display()))
            }
            None => Ok(()),
        }
    }

    /// The CA that is in the folder.
    fn found_ca(&self) -> Result<Option<ClusterCa>, String> {
        let [cert, key] = ["pem", "key"].map(|extension| self.file(CA, extension));
        let read = |path: &Path| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(path, &error)),
        };
        let alone = |there: &Path, missing: &Path| {
            let (there, missing) = (there.display(), missing.display());
            Err(format!("{there} is there without {missing}: no certificates can be made of it"))
        };
        match (read(&cert)?, read(&key)?) {
            (None, None) => Ok(None),
            (Some(_), None) => alone(&cert, &key),
            (None, Some(_)) => alone(&key, &cert),
            (Some(cert_pem), Some(key_pem)) => ClusterCa::from_pem(&cert_pem, &key_pem)
                .map(Some)
                .map_err(|error| format!("{} and its key: {error}", cert.display())),
        }
    }

    /// A node's certificate, which is tried before it is given away.
    fn issue(&self, ca: &ClusterCa, name: &str) -> Result<[Pem; 2], String> {
        let told = |error: &dyn std::fmt::Display| format!("--name {name:?}: {error}");
        let node = ca.issue(name).map_err(|error| told(&error))?;
        let (cert, key) = (node.cert_pem.as_bytes(), node.key_pem.as_bytes());
        let tls = TlsConfig::from_pem(cert, key, ca.cert_pem().as_bytes());
        // Two dots in a row are none in DNS, for example.
        match tls.and_then(|tls| tls.bind_names(true)) {
            Ok(tls) if tls.bound_name().is_some_and(|bound| **bound == *name) => {
                Ok(self.pems(name, &node.cert_pem, &node.key_pem))
            }
            Ok(_) | Err(TlsError::NoName) => Err(told(&"this is no name in DNS")),
            Err(error) => Err(told(&error)),
        }
    }
}

impl Pem {
    /// Never half of it under its name: whoever watches the file reads the old one or the new one.
    fn write(&self, force: bool) -> io::Result<()> {
        if !force || self.path.symlink_metadata().is_err() {
            let mut file = self.create(&self.path)?;
            return file.write_all(self.text.as_bytes());
        }
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        // Left behind by an attempt that was interrupted.
        let _ = fs::remove_file(&beside);
        let mut file = self.create(&beside)?;
        file.write_all(self.text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }

    /// A file that was not there, with the rights it shall have from the start.
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if self.secret {
            for_owner_only(&mut options);
        }
        options.open(path)
    }
}

fn for_owner_only(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn print(line: &str) -> Result<(), String> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")
        .and_then(|()| output.flush())
        .map_err(|error| format!("could not write the output: {error}"))
}
