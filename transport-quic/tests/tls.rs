//! Who is let in, and what the others hear.

mod common;

use std::sync::Arc;
use std::time::Duration;

use memberlist_transport::{Destination, OpenError, SendError, Transport};
use memberlist_transport_quic::{ClusterCa, QuicTransport, TlsConfig, TlsError};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::common::{PATIENCE, bind, ca, exchange, recv, to, until, within};

fn roots(ca: &ClusterCa) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).unwrap()).unwrap();
    roots
}

fn builder(ca: &ClusterCa) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(ca))
}

/// What a client of one's own making is told in the end, when it dials as `node`.
async fn told(client: ClientConfig, server: &QuicTransport) -> quinn::ConnectionError {
    let client = QuicClientConfig::try_from(client).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(client));
    let dialled = endpoint.connect_with(config, server.advertise_addr(), "node").unwrap();
    let dialled = within("the handshake", dialled).await;
    match dialled {
        Ok(connection) => within("the end of the connection", connection.closed()).await,
        Err(error) => error,
    }
}

/// The words in which a dial fails.
async fn refusal(from: &QuicTransport, to: &Destination) -> String {
    match from.open_stream(to, PATIENCE).await {
        Err(OpenError::Io { source, .. }) => source.to_string(),
        Err(error) => panic!("{error}"),
        // TLS lets a client believe that it is through before the server has looked at it.
        Ok(mut stream) => {
            let mut answer = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
            within("the refusal", read).await.unwrap_err().to_string()
        }
    }
}

#[tokio::test]
async fn certificates_of_another_ca_are_refused_on_both_sides() {
    let (ours, theirs) = (ca(), ca());
    let node = bind(ours.tls("node").unwrap());
    let stranger = bind(theirs.tls("node").unwrap());
    let text = refusal(&stranger, &to(&node)).await;
    assert!(text.contains("this node refused the peer") && text.contains("CA"), "{text}");
    until("the failed handshake", || node.stats().handshakes_failed >= 1).await;

    // One that trusts this CA, but has no certificate of it.
    let certificate = theirs.issue("node").unwrap();
    let half = TlsConfig::from_pem(
        certificate.cert_pem.as_bytes(),
        certificate.key_pem.as_bytes(),
        ours.cert_pem().as_bytes(),
    );
    let half = bind(half.unwrap());
    let text = refusal(&half, &to(&node)).await;
    assert!(text.contains("CA"), "{text}");
    until("the failed handshake", || node.stats().handshakes_failed >= 2).await;
    // Packets say so as well, instead of vanishing.
    let told = async {
        loop {
            if let Err(SendError::Io { source, .. }) = half.send_packet(&to(&node), b"x").await {
                return source.to_string();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let text = within("the error of a packet", told).await;
    assert!(text.contains("CA"), "{text}");

    assert_eq!(node.stats().connections_accepted, 0);
    let honest = bind(ours.tls("honest").unwrap());
    exchange(&honest, &node, b"undisturbed").await;
}

#[tokio::test]
async fn expired_certificates_are_refused() {
    let ca = ca();
    let node = bind(ca.tls("node").unwrap());
    let expired = ca.issue_for("old", Duration::ZERO).unwrap();
    let tls = TlsConfig::from_pem(
        expired.cert_pem.as_bytes(),
        expired.key_pem.as_bytes(),
        ca.cert_pem().as_bytes(),
    );
    // The clock of certificates counts in seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let old = bind(tls.unwrap());
    let text = refusal(&old, &to(&node)).await;
    assert!(text.contains("expired"), "{text}");
    let text = refusal(&node, &to(&old)).await;
    assert!(text.contains("expired"), "{text}");
}

/// QUIC would panic at the first handshake.
#[test]
fn what_speaks_an_older_tls_alone_is_refused() {
    let ca = ca();
    let certificate = ca.issue("node").unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).unwrap();
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let (old, new) = (&[&rustls::version::TLS12], &[&rustls::version::TLS13]);
    let server = |versions| {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).unwrap().with_no_client_auth();
        builder.with_single_cert(chain.clone(), key.clone_key()).unwrap()
    };
    let client = |versions| {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).unwrap();
        builder.with_root_certificates(roots(&ca)).with_no_client_auth()
    };
    TlsConfig::from_rustls(server(new), client(new)).unwrap();
    for (server, client) in [(server(old), client(new)), (server(new), client(old))] {
        let error = TlsConfig::from_rustls(server, client).unwrap_err();
        assert!(error.to_string().contains("TLS 1.3"), "{error}");
    }
}

#[test]
fn a_certificate_may_be_valid_for_ever() {
    let ca = ca();
    let certificate = ca.issue_for("node", Duration::MAX).unwrap();
    let (cert, key) = (certificate.cert_pem.as_bytes(), certificate.key_pem.as_bytes());
    TlsConfig::from_pem(cert, key, ca.cert_pem().as_bytes()).unwrap();
}

#[tokio::test]
async fn nobody_comes_in_without_a_certificate_or_as_another_service() {
    let ca = ca();
    let node = bind(ca.tls("node").unwrap());
    let mut without = builder(&ca).with_no_client_auth();
    without.alpn_protocols = vec![b"memberlist/1".to_vec()];
    let error = told(without, &node).await;
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");

    let certificate = ca.issue("web").unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).unwrap();
    let mut foreign = builder(&ca).with_client_auth_cert(chain, key).unwrap();
    foreign.alpn_protocols = vec![b"h3".to_vec()];
    let error = told(foreign, &node).await;
    let quinn::ConnectionError::ConnectionClosed(close) = &error else { panic!("{error:?}") };
    // The alert "no application protocol".
    assert_eq!(u64::from(close.error_code), 0x100 + 120, "{error:?}");
    until("the failed handshakes", || node.stats().handshakes_failed == 2).await;
    assert_eq!(node.stats().connections_accepted, 0);
}

/// A web server, say, at the address of a seed.
#[tokio::test]
async fn a_foreign_service_is_told_apart() {
    let ca = ca();
    let certificate = ca.issue("web").unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"h3".to_vec()];
    let server = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
    let server = quinn::ServerConfig::with_crypto(Arc::new(server));
    let web = quinn::Endpoint::server(server, "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = web.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = web.accept().await {
            // It fails, which is what is looked at from the other side.
            let _ = incoming.await;
        }
    });
    let node = bind(ca.tls("node").unwrap());
    let text = refusal(&node, &addr.into()).await;
    assert!(text.contains("memberlist/1"), "{text}");
}

fn named(transport: &QuicTransport, name: &str) -> Destination {
    Destination { name: Some(name.into()), ..to(transport) }
}

#[tokio::test]
async fn a_bound_name_is_known_on_both_sides_and_asked_for() {
    let ca = ca();
    let bound = |name: &str| bind(ca.tls(name).unwrap().bind_names(true).unwrap());
    let (a, b) = (bound("a"), bound("b"));
    assert_eq!(a.own_name().as_deref(), Some("a"));
    let source = exchange(&a, &b, b"who am I?").await;
    assert_eq!(source.authenticated_name.as_deref(), Some("a"));
    let source = exchange(&b, &a, b"and who am I?").await;
    assert_eq!(source.authenticated_name.as_deref(), Some("b"));

    a.send_packet(&named(&b, "b"), b"for you").await.unwrap();
    let error = a.send_packet(&named(&b, "c"), b"for another").await.unwrap_err();
    assert!(error.to_string().contains("is b's, not c's"), "{error}");
    let error = a.open_stream(&named(&b, "c"), PATIENCE).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("is b's, not c's"), "{error}");
    assert_eq!(a.stats().names_refused, 2);

    // Where names are not bound, nobody has one.
    let c = bind(ca.tls("c").unwrap());
    assert_eq!(c.own_name(), None);
    let source = exchange(&a, &c, b"nobody").await;
    assert_eq!(source.authenticated_name, None);
    c.send_packet(&named(&a, "whoever"), b"x").await.unwrap();
}

/// The first packets to an address go before it is known who is there.
#[tokio::test]
async fn what_waits_for_one_member_is_not_given_to_another() {
    let ca = ca();
    let bound = |name: &str| bind(ca.tls(name).unwrap().bind_names(true).unwrap());
    let (a, b) = (bound("a"), bound("b"));
    a.send_packet(&named(&b, "c"), b"for c only").await.unwrap();
    a.send_packet(&named(&b, "b"), b"for b").await.unwrap();
    let (heard, _) = within("what is b's", recv(&b)).await.unwrap();
    assert_eq!(heard, b"for b");
    assert_eq!((a.stats().packets_dropped_waiting, a.stats().packets_sent), (1, 1));
}

/// As one that came through a variable without its line breaks.
#[test]
fn no_error_shows_a_private_key() {
    let ca = ca();
    let node = ca.issue("node").unwrap();
    let secret = node.key_pem.lines().nth(1).unwrap();
    let as_numbers = format!("{:?}", secret.as_bytes());
    let as_numbers = as_numbers.trim_matches(['[', ']']);
    for key in [node.key_pem.replace('\n', ""), node.key_pem.replace('\n', " ")] {
        let (cert, ca) = (node.cert_pem.as_bytes(), ca.cert_pem().as_bytes());
        let error = TlsConfig::from_pem(cert, key.as_bytes(), ca).unwrap_err();
        assert!(matches!(error, TlsError::NotPem { .. }), "{error}");
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(!text.contains(secret) && !text.contains(as_numbers), "{text}");
        }
    }
}

#[tokio::test]
async fn a_certificate_without_a_name_does_not_do_where_names_are_bound() {
    let ca = ca();
    // An IP address is no name.
    let nameless = ca.tls("127.0.0.1").unwrap();
    assert!(matches!(nameless.clone().bind_names(true), Err(TlsError::NoName)));
    let node = bind(ca.tls("node").unwrap().bind_names(true).unwrap());
    let nameless = bind(nameless);
    let text = refusal(&nameless, &to(&node)).await;
    assert!(text.contains("name"), "{text}");
    until("the refusal", || node.stats().names_refused == 1).await;
    let text = refusal(&node, &to(&nameless)).await;
    assert!(text.contains("name"), "{text}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (ca, other_ca) = (ca(), ca());
    let node = ca.issue("node").unwrap();
    let (cert, key, root) =
        (node.cert_pem.as_bytes(), node.key_pem.as_bytes(), ca.cert_pem().as_bytes());
    TlsConfig::from_pem(cert, key, root).unwrap();

    let error = TlsConfig::from_pem(b"", key, root).unwrap_err();
    assert!(matches!(error, TlsError::Missing { kind: "certificate", .. }), "{error}");
    let error = TlsConfig::from_pem(cert, cert, root).unwrap_err();
    assert!(matches!(error, TlsError::Missing { kind: "private key", .. }), "{error}");
    let error = TlsConfig::from_pem(cert, key, key).unwrap_err();
    assert!(matches!(error, TlsError::Missing { kind: "certificate", .. }), "{error}");
    let cut = &cert[..cert.len() / 2];
    let error = TlsConfig::from_pem(cut, key, root).unwrap_err();
    assert!(matches!(error, TlsError::NotPem { .. }), "{error}");
    let other = ca.issue("other").unwrap();
    let error = TlsConfig::from_pem(cert, other.key_pem.as_bytes(), root).unwrap_err();
    assert!(matches!(error, TlsError::Certificate { .. }), "{error}");
    let not_der = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = TlsConfig::from_pem(cert, key, not_der).unwrap_err();
    assert!(matches!(error, TlsError::Ca { .. }), "{error}");

    let error = ClusterCa::from_pem(ca.cert_pem(), &node.key_pem).unwrap_err();
    assert!(matches!(error, TlsError::Certificate { .. }), "{error}");
    ClusterCa::from_pem(ca.cert_pem(), ca.key_pem()).unwrap();

    // A CA that would be passed over in silence.
    for bundle in [
        format!("{}{}", other_ca.cert_pem().trim_end(), ca.cert_pem()),
        format!("{}  {}", other_ca.cert_pem(), ca.cert_pem()),
        format!("\u{feff}{}{}", ca.cert_pem(), other_ca.cert_pem()),
    ] {
        let error = TlsConfig::from_pem(cert, key, bundle.as_bytes()).unwrap_err();
        assert!(matches!(error, TlsError::Unread { begun: 2, read: 1, .. }), "{error}");
    }
    let encrypted = node.key_pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let error = TlsConfig::from_pem(cert, encrypted.as_bytes(), root).unwrap_err();
    assert!(matches!(error, TlsError::EncryptedKey { .. }), "{error}");

    // Which file it is, of what was read, and in words.
    let folder = std::env::temp_dir().join(format!("memberlist-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &[u8]| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    let (cert_file, ca_file) = (file("node.pem", cert), file("ca.pem", root));
    let other_key = file("other.key", other.key_pem.as_bytes());
    let error = TlsConfig::from_pem_files(&cert_file, &other_key, &ca_file).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("node.pem") && text.contains("other.key"), "{text}");
    assert!(text.ends_with("the key is not the certificate's"), "{text}");
    let (key_file, bad) = (file("node.key", key), file("bad.pem", not_der));
    let text = TlsConfig::from_pem_files(&bad, &key_file, &ca_file).unwrap_err().to_string();
    assert!(text.contains("bad.pem") && !text.contains("peer"), "{text}");
    let text = TlsConfig::from_pem_files(&cert_file, &key_file, &bad).unwrap_err().to_string();
    assert!(text.contains("bad.pem") && !text.contains("peer"), "{text}");
    std::fs::remove_dir_all(&folder).unwrap();

    let error = TlsConfig::from_pem_files("/nowhere/a.pem", "b", "c").unwrap_err();
    assert!(error.to_string().contains("/nowhere/a.pem"), "{error}");
}
