//! Certificates for development and tests.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use super::{TlsConfig, TlsError};

/// How long certificates are valid, if nothing else is said.
const VALID_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// Certificates have no years above 9999.
const VALID_FOR_EVER: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// A certificate is valid from this long ago on, as clocks differ.
const VALID_SINCE: Duration = Duration::from_secs(3600);

/// A certificate authority for one cluster, made on the spot: for development and tests. Its key is
/// in memory and, if written, in a file; a cluster that matters has a CA with more care.
///
/// ```
/// # #[cfg(feature = "dev-certs")] {
/// use memberlist_transport_quic::TlsConfig;
///
/// let ca = TlsConfig::cluster_ca()?;
/// let certificate = ca.issue("node-1")?;
/// let tls = TlsConfig::from_pem(
///     certificate.cert_pem.as_bytes(),
///     certificate.key_pem.as_bytes(),
///     ca.cert_pem().as_bytes(),
/// )?
/// .bind_names(true)?;
/// assert_eq!(tls.bound_name().unwrap(), "node-1");
/// # }
/// # Ok::<(), memberlist_transport_quic::TlsError>(())
/// ```
pub struct ClusterCa {
    cert_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, as PEM text.
#[derive(Clone)]
#[non_exhaustive]
pub struct NodeCertificate {
    /// The certificate.
    pub cert_pem: String,
    /// The private key, which nobody else should see.
    pub key_pem: String,
}

impl std::fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCertificate").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterCa").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

impl ClusterCa {
    fn new() -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        // Two CAs of one name could not be told apart by the errors.
        let id: String =
            key.public_key_raw().iter().rev().take(4).map(|b| format!("{b:02x}")).collect();
        params.distinguished_name = common_name(&format!("memberlist development CA {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, VALID_FOR * 10);
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(Self { cert_pem, key_pem: key.serialize_pem(), issuer: Issuer::new(params, key) })
    }

    /// A CA that was written before: its certificate, and its private key.
    ///
    /// # Errors
    /// [`TlsError`] if either makes no sense, or they do not fit each other.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        // An issuer takes any key, and nobody would accept the certificates of a wrong one.
        TlsConfig::from_pem(cert_pem.as_bytes(), key_pem.as_bytes(), cert_pem.as_bytes())?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Self { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned(), issuer })
    }

    /// The CA's certificate: what every node trusts.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The CA's private key: who has it can let anybody in.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A certificate for the node of this name, valid for 90 days. For a name that is not valid in
    /// DNS, see [`bind_names`](TlsConfig::bind_names).
    ///
    /// # Errors
    /// [`TlsError::Make`] if the name cannot stand in a certificate (it must be ASCII).
    pub fn issue(&self, name: &str) -> Result<NodeCertificate, TlsError> {
        self.issue_for(name, VALID_FOR)
    }

    /// As [`issue`](Self::issue), valid for this long from now, 1,000 years at most; zero makes an
    /// expired one.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn issue_for(&self, name: &str, valid_for: Duration) -> Result<NodeCertificate, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = common_name(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, valid_for);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(NodeCertificate { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// What the node of this name needs, with a fresh certificate.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn tls(&self, name: &str) -> Result<TlsConfig, TlsError> {
        let node = self.issue(name)?;
        TlsConfig::from_pem(
            node.cert_pem.as_bytes(),
            node.key_pem.as_bytes(),
            self.cert_pem.as_bytes(),
        )
    }
}

impl TlsConfig {
    /// Makes a CA for development and tests.
    ///
    /// # Errors
    /// [`TlsError::Make`] if the system gives no randomness.
    pub fn cluster_ca() -> Result<ClusterCa, TlsError> {
        ClusterCa::new()
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn valid(params: &mut CertificateParams, valid_for: Duration) {
    let now = std::time::SystemTime::now();
    params.not_before = (now - VALID_SINCE).into();
    params.not_after = (now + valid_for.min(VALID_FOR_EVER)).into();
}
