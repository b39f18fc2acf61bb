//! Certificates: which this node shows, and which it accepts.

#[cfg(feature = "dev-certs")]
mod dev;
mod verify;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memberlist_transport::EcoString;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use ring::hmac;
use rustls::client::Resumption;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::quic::{ClientConnection, ServerConnection, Version};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};

#[cfg(feature = "dev-certs")]
pub use dev::{ClusterCa, NodeCertificate};
use verify::ClusterVerifier;
pub(crate) use verify::name_of;

/// What the two ends of a connection agree on before anything else (RFC 7301). The number grows when
/// what runs inside the connection changes so that old nodes would not understand it.
pub(crate) const ALPN: &[u8] = b"memberlist/1";

/// How each certificate begins in PEM.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The server name in a handshake that names nobody; it can be read by whoever looks on.
const NO_SERVER_NAME: &str = "memberlist.invalid";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read.
    #[error("could not read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What should be PEM is not.
    #[error("{what} is not PEM: {why}")]
    NotPem {
        /// `"the certificate"`, `"the key"` or `"the CA"`, or the file it came from.
        what: String,
        /// What is wrong. Nothing of the text is in it, which may be a private key.
        why: &'static str,
    },
    /// There is no such thing in the PEM text.
    #[error("there is no {kind} in {what}")]
    Missing {
        /// `"certificate"` or `"private key"`.
        kind: &'static str,
        /// As in [`NotPem`](Self::NotPem).
        what: String,
    },
    /// Some of the certificates in a PEM text could not be seen: what begins in the middle of a line, as
    /// after a file that does not end its last line, is skipped.
    #[error(
        "of {begun} certificates in {what} only {read} can be read: each must begin at the start of a \
         line"
    )]
    Unread {
        /// As in [`NotPem`](Self::NotPem).
        what: String,
        /// How many begin.
        begun: usize,
        /// How many are found.
        read: usize,
    },
    /// The private key is encrypted, which is not supported: give it in the clear, readable by nobody
    /// else.
    #[error("the private key in {what} is encrypted; it must be given without a passphrase")]
    EncryptedKey {
        /// As in [`NotPem`](Self::NotPem).
        what: String,
    },
    /// A certificate of the CA cannot be trusted, because it makes no sense.
    #[error("a certificate in {what} cannot be used as a CA's: {why}", why = in_words(source))]
    Ca {
        /// As in [`NotPem`](Self::NotPem).
        what: String,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The certificate and the key do not fit each other, or make no sense.
    #[error("{what} cannot be used: {why}", why = in_words(source))]
    Certificate {
        /// `"the certificate and the key"`, or the files they came from.
        what: String,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Peers could not be verified with what was given.
    #[error("clients cannot be verified: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// Names shall be bound to certificates, and this node's certificate has none.
    #[error(
        "names are bound to certificates, but this node's certificate has no DNS name: its first \
         subject alternative name must be the node's name"
    )]
    NoName,
    /// Names are bound to certificates, and the one to use from now on has another name than the one
    /// of before. A running node keeps its name.
    #[error("the certificate is {found}'s, and the one in use is {bound}'s")]
    OtherName {
        /// The name in the new certificate.
        found: EcoString,
        /// The name in the certificate in use.
        bound: EcoString,
    },
    /// The cryptography given has no cipher suite that QUIC starts with (TLS 1.3 with AES-128-GCM).
    #[error("QUIC needs TLS 1.3 with AES-128-GCM: {0}")]
    NotForQuic(#[from] NoInitialCipherSuite),
    /// The new certificate has expired, or its chain has: nobody would accept it.
    #[error("{what} has expired")]
    Expired {
        /// `"the certificate"`, or the file it came from.
        what: String,
    },
    /// The configurations given cannot begin a handshake of QUIC: they lack TLS 1.3.
    #[error("not for QUIC: {0}")]
    OldTls(#[source] rustls::Error),
    /// A certificate could not be made.
    #[cfg(feature = "dev-certs")]
    #[error("could not make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// This node's certificate and key, and the CAs whose certificates it accepts from peers, in either
/// direction: TLS 1.3, and mutual.
///
/// A peer is accepted if its certificate chain leads to one of the CAs and is valid now. The CA
/// should be the cluster's own: whoever has a certificate of it is inside. Host names are not
/// checked, as members come and go and move; see [`bind_names`](Self::bind_names) for what can be
/// checked instead.
///
/// The leaf certificate serves both ends, so if it has an extended key usage, it must list both
/// `serverAuth` and `clientAuth`.
///
/// Sessions are never resumed and no data goes ahead of the handshake (0-RTT): every connection
/// verifies the certificates as they are then, and nothing can be replayed.
#[derive(Clone)]
pub struct TlsConfig {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// The name in this node's certificate.
    own_name: Option<EcoString>,
    binds_names: bool,
    /// Whether the client side checks the server's name by itself.
    checks_server_name: bool,
    /// What only who holds the key can know.
    secret: Option<[u8; 32]>,
    own: Option<Arc<Own>>,
}

/// This node's chain, if it is known, and how peers with the same CAs look at it.
struct Own {
    /// As in [`TlsError::Expired`].
    what: String,
    chain: Vec<CertificateDer<'static>>,
    verifier: ClusterVerifier,
}

impl TlsConfig {
    /// From PEM files: this node's chain with its own certificate first, its private key (PKCS #8,
    /// PKCS #1 or SEC 1), and the certificates of one CA or several.
    ///
    /// Whether this node's own certificate is valid now, and of one of these CAs, is not looked at:
    /// the peers judge it. Who has one that has expired starts, and is refused by each peer; only
    /// [`reload`](crate::QuicTransport::reload) refuses it.
    ///
    /// # Errors
    /// [`TlsError`] that names the file.
    pub fn from_pem_files(
        cert: impl AsRef<Path>,
        key: impl AsRef<Path>,
        ca: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let [cert, key, ca] = [cert.as_ref(), key.as_ref(), ca.as_ref()];
        let shown = |path: &Path| path.display().to_string();
        let cert = (shown(cert), read(cert)?);
        let key = (shown(key), read(key)?);
        let ca = (shown(ca), read(ca)?);
        Self::from_named_pem((&cert.0, &cert.1), (&key.0, &key.1), (&ca.0, &ca.1))
    }

    /// As [`from_pem_files`](Self::from_pem_files), from PEM text.
    ///
    /// # Errors
    /// [`TlsError`] that names the part.
    pub fn from_pem(cert: &[u8], key: &[u8], ca: &[u8]) -> Result<Self, TlsError> {
        Self::from_named_pem(("the certificate", cert), ("the key", key), ("the CA", ca))
    }

    fn from_named_pem(
        cert: (&str, &[u8]),
        key: (&str, &[u8]),
        ca: (&str, &[u8]),
    ) -> Result<Self, TlsError> {
        let chain = certificates(cert)?;
        let no_key = |error| match error {
            pem::Error::NoItemsFound if contains(key.1, b"-----BEGIN ENCRYPTED PRIVATE KEY") => {
                TlsError::EncryptedKey { what: key.0.to_owned() }
            }
            pem::Error::NoItemsFound => {
                TlsError::Missing { kind: "private key", what: key.0.to_owned() }
            }
            error => not_pem(key.0, &error),
        };
        let names = (cert.0, key.0);
        let key = PrivateKeyDer::from_pem_slice(key.1).map_err(no_key)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            let unusable = |source| TlsError::Ca { what: ca.0.to_owned(), source };
            roots.add(certificate).map_err(unusable)?;
        }
        Self::from_parts(names, chain, key, roots)
    }

    /// From the parts themselves: this node's chain with its own certificate first, its key, and the
    /// CAs.
    ///
    /// # Errors
    /// [`TlsError`] if they do not fit.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: RootCertStore,
    ) -> Result<Self, TlsError> {
        Self::from_parts(("the certificate", "the key"), chain, key, roots)
    }

    fn from_parts(
        names: (&str, &str),
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: RootCertStore,
    ) -> Result<Self, TlsError> {
        let what = || format!("{} and {}", names.0, names.1);
        let unusable = |source| TlsError::Certificate { what: what(), source };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own_name = chain.first().and_then(name_of);
        let secret = secret_of(&key);
        let roots = Arc::new(roots);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        let verifier = ClusterVerifier::new(roots, &provider);
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier.clone()))
            .with_client_auth_cert(chain.clone(), key)
            .map_err(unusable)?;
        let tls = Self::from_rustls(server, client)?;
        let own = Some(Arc::new(Own { what: names.0.to_owned(), chain, verifier }));
        Ok(Self { own_name, checks_server_name: false, secret: Some(secret), own, ..tls })
    }

    /// From rustls configurations of one's own, for what the others cannot say: revocation lists,
    /// keys in hardware, one-sided TLS. The ALPN protocol, resumption and 0-RTT are set here.
    ///
    /// The client's verifier is given the member's name, or, as long as that is not known (the seeds
    /// of a join), its IP address. A peer that dials is what the server's verifier says.
    ///
    /// # Errors
    /// [`TlsError::OldTls`] if they lack TLS 1.3, [`TlsError::NotForQuic`] if they lack its cipher suite
    /// with AES-128-GCM.
    pub fn from_rustls(server: ServerConfig, client: ClientConfig) -> Result<Self, TlsError> {
        let (mut server, mut client) = (server, client);
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        let tls = Self {
            server: Arc::new(server),
            client: Arc::new(client),
            own_name: None,
            binds_names: false,
            checks_server_name: true,
            secret: None,
            own: None,
        };
        // What cannot work is told now.
        tls.quic_server()?;
        tls.quic_client()?;
        tls.begin()?;
        Ok(tls)
    }

    /// Begins a handshake in either direction, for what QUIC takes for granted when it does.
    fn begin(&self) -> Result<(), TlsError> {
        let nobody = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let (server, client) = (Arc::clone(&self.server), Arc::clone(&self.client));
        ServerConnection::new(server, Version::V1, Vec::new()).map_err(TlsError::OldTls)?;
        ClientConnection::new(client, Version::V1, nobody, Vec::new()).map_err(TlsError::OldTls)?;
        Ok(())
    }

    /// Whether a certificate speaks for one member only: the one whose name is the first DNS name
    /// among its subject alternative names, letter for letter. Default off.
    ///
    /// What a peer says of itself under another name is refused then: its connection, if it was
    /// dialled by name; its pings, acks and requests; news that it is somebody else at its own
    /// address. What it says of *third* members stays trusted, since that is what gossip is: this
    /// keeps a member from posing as another, not from lying about another.
    ///
    /// Only names that are valid in DNS can be bound: letters, digits, `-`, `_` and dots.
    ///
    /// # Errors
    /// [`TlsError::NoName`] if this node's own certificate has no such name. Of what was made by
    /// [`from_rustls`](Self::from_rustls) that cannot be known.
    pub fn bind_names(mut self, on: bool) -> Result<Self, TlsError> {
        if on && self.own_name.is_none() && !self.checks_server_name {
            return Err(TlsError::NoName);
        }
        self.binds_names = on;
        Ok(self)
    }

    /// The name in this node's own certificate, if it is known and names are bound.
    pub fn bound_name(&self) -> Option<&EcoString> {
        self.own_name.as_ref().filter(|_| self.binds_names)
    }

    pub(crate) fn binds_names(&self) -> bool {
        self.binds_names
    }

    /// Whether this node's certificate is still valid, as far as that is known.
    pub(crate) fn check_expiry(&self) -> Result<(), TlsError> {
        match self.own.as_deref() {
            Some(own) if own.verifier.finds_expired(&own.chain) => {
                Err(TlsError::Expired { what: own.what.clone() })
            }
            _ => Ok(()),
        }
    }

    /// What to call the server in a handshake with this peer.
    pub(crate) fn server_name(&self, name: Option<&str>, ip: IpAddr) -> String {
        match name {
            _ if !self.checks_server_name => NO_SERVER_NAME.to_owned(),
            Some(name) => name.to_owned(),
            None => ip.to_string(),
        }
    }

    pub(crate) fn quic_server(&self) -> Result<QuicServerConfig, TlsError> {
        Ok(QuicServerConfig::try_from(Arc::clone(&self.server))?)
    }

    pub(crate) fn quic_client(&self) -> Result<QuicClientConfig, TlsError> {
        Ok(QuicClientConfig::try_from(Arc::clone(&self.client))?)
    }

    /// A key that this node has again after a restart, as long as its private key stays the same;
    /// another one at each advertised address, since one private key may serve several nodes.
    pub(crate) fn lasting_key(&self, addr: std::net::SocketAddr) -> Option<hmac::Key> {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &self.secret?);
        let tag = hmac::sign(&secret, addr.to_string().as_bytes());
        Some(hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref()))
    }
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig")
            .field("own_name", &self.own_name)
            .field("binds_names", &self.binds_names)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn certificates((what, text): (&str, &[u8])) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| not_pem(what, &error))?;
    let begun = text.windows(BEGIN.len()).filter(|window| *window == BEGIN).count();
    match found.len() {
        read if read < begun => Err(TlsError::Unread { what: what.to_owned(), begun, read }),
        0 => Err(TlsError::Missing { kind: "certificate", what: what.to_owned() }),
        _ => Ok(found),
    }
}

/// What of the text is in the error stays out: a key whose line breaks are lost would be in it.
fn not_pem(what: &str, error: &pem::Error) -> TlsError {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => {
            "no line \"-----END ...-----\" follows, as where line breaks are lost"
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a line that begins with \"-----BEGIN\" does not end with \"-----\""
        }
        pem::Error::Base64Decode(_) => "what it holds is not base64",
        _ => "it cannot be read",
    };
    TlsError::NotPem { what: what.to_owned(), why }
}

/// What is wrong with a certificate or key of this node's own, for people.
fn in_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the key is not the certificate's".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => {
            "the certificate makes no sense".to_owned()
        }
        // rustls says "peer" in front.
        rustls::Error::InvalidCertificate(error) => error.to_string(),
        error => error.to_string(),
    }
}

fn secret_of(key: &PrivateKeyDer<'_>) -> [u8; 32] {
    let purpose = hmac::Key::new(hmac::HMAC_SHA256, b"memberlist stateless reset");
    let tag = hmac::sign(&purpose, key.secret_der());
    let mut secret = [0; 32];
    secret.copy_from_slice(tag.as_ref());
    secret
}
