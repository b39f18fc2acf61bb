//! Why a transport could not be made, and what became of a connection, in words.

use std::io;
use std::net::SocketAddr;

use quinn::{ConnectError, ConnectionClose, ConnectionError, VarInt};

use crate::TlsError;
use crate::tls::ALPN;

/// Why [`QuicTransport::bind`](crate::QuicTransport::bind) failed. Nothing stays open after it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A setting is zero or out of its range.
    #[error("{name} is {got}, allowed is {allowed}")]
    Setting {
        /// The field of [`QuicConfig`](crate::QuicConfig).
        name: &'static str,
        /// What was given.
        got: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The address that the caller wants to advertise names no single node, like `0.0.0.0`.
    #[error("{addr} cannot be advertised: it names no single node")]
    UnusableAdvertiseAddr {
        /// What was given.
        addr: SocketAddr,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Called from outside a tokio runtime.
    #[error("no tokio runtime here; bind from within one that has I/O and time enabled")]
    NoRuntime,
    /// The system refused the socket.
    #[error("could not bind udp {addr}: {source}")]
    Socket {
        /// The address that was to be bound.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A wildcard address is bound and the system did not tell its interfaces, so that an address to
    /// advertise cannot be chosen.
    #[error("could not list the interfaces; set an address to advertise instead: {0}")]
    Interfaces(#[source] io::Error),
}

/// Why a connection was closed on purpose: the application error code of QUIC's CONNECTION_CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The transport was closed.
    Closed = 0,
    /// Another connection between the two takes over.
    Replaced = 1,
    /// It was not used for longest, and there are too many.
    Evicted = 2,
    /// There are too many, of all or of one source.
    TooMany = 3,
    /// The certificate has no name, or another than it must have.
    WrongName = 4,
    /// No datagrams: not the peer that this is for.
    NoDatagrams = 5,
}

impl CloseCode {
    const ALL: [Self; 6] = [
        Self::Closed,
        Self::Replaced,
        Self::Evicted,
        Self::TooMany,
        Self::WrongName,
        Self::NoDatagrams,
    ];

    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub(crate) fn of(code: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Replaced => "replaced by another connection",
            Self::Evicted => "too many connections: this one was not used for longest",
            Self::TooMany => "too many connections",
            Self::WrongName => "the certificate has not the name it must have",
            Self::NoDatagrams => "no QUIC datagrams",
        }
    }
}

/// Why there is no connection to a peer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("no answer to the QUIC handshake within {0:?}")]
    Timeout(std::time::Duration),
    #[error("{0}")]
    Refused(String),
    #[error("no bind address of this node is {0}")]
    OtherVersion(&'static str),
    #[error("the certificate at this address is {found}'s, not {wanted}'s")]
    WrongName { found: String, wanted: String },
    #[error("the transport is closed")]
    Closed,
}

impl DialError {
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Timeout(_) => io::ErrorKind::TimedOut,
            Self::Refused(_) => io::ErrorKind::ConnectionRefused,
            Self::OtherVersion(_) => io::ErrorKind::AddrNotAvailable,
            Self::WrongName { .. } => io::ErrorKind::PermissionDenied,
            Self::Closed => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, self.to_string())
    }
}

impl From<ConnectError> for DialError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::EndpointStopping => Self::Closed,
            error => Self::Refused(error.to_string()),
        }
    }
}

/// The first of the error codes that carry a TLS alert (RFC 9001 section 4.8).
const CRYPTO_ERRORS: u64 = 0x100;

/// What ended a connection, for people.
pub(crate) fn in_words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::VersionMismatch => "the peer speaks another version of QUIC".to_owned(),
        ConnectionError::ConnectionClosed(close) => {
            match alert_in_words(u64::from(close.error_code)) {
                Some(text) => format!("the peer {text}"),
                None => format!("the peer ended the connection: {}", shown(close)),
            }
        }
        ConnectionError::ApplicationClosed(close) => match CloseCode::of(close.error_code) {
            Some(code) => format!("the peer closed the connection: {}", code.reason()),
            None => format!("the peer closed the connection with code {}", close.error_code),
        },
        ConnectionError::TransportError(error) => {
            let code = u64::from(error.code);
            if code == CRYPTO_ERRORS + ALERT_NO_ALPN {
                return format!("the peer {}", no_alpn());
            }
            if let Some(why) = code.checked_sub(CRYPTO_ERRORS).and_then(certificate_fault) {
                return format!("this node refused the peer's certificate: {why}");
            }
            if (CRYPTO_ERRORS..CRYPTO_ERRORS + 0x100).contains(&code) {
                return format!("this node refused the peer: {}", error.reason);
            }
            format!("the peer broke the rules of QUIC: {error}")
        }
        ConnectionError::Reset => "the peer has restarted".to_owned(),
        ConnectionError::TimedOut => "the peer did not answer".to_owned(),
        ConnectionError::LocallyClosed => "closed".to_owned(),
        error => error.to_string(),
    }
}

/// The reason in it may be anybody's: it comes before the peer has shown a certificate.
fn shown(close: &ConnectionClose) -> String {
    let shown = |char: char| if char.is_control() { ' ' } else { char };
    close.to_string().chars().map(shown).collect()
}

const ALERT_NO_ALPN: u64 = 120;

/// What a TLS alert (RFC 8446 section 6) says against a certificate, whichever side raised it.
fn certificate_fault(alert: u64) -> Option<&'static str> {
    Some(match alert {
        42 => "it makes no sense",
        43 => "it is not for both ends: an extended key usage must list serverAuth and clientAuth",
        44 => "it is revoked",
        45 => "it has expired, or is not valid yet",
        48 => "it is of a CA that is not trusted",
        51 => "the signature is not by the CA that it names",
        _ => return None,
    })
}

/// A TLS alert of the peer's, as what the peer did.
fn alert_in_words(code: u64) -> Option<String> {
    let alert = code.checked_sub(CRYPTO_ERRORS)?;
    if let Some(why) = certificate_fault(alert) {
        return Some(format!("refused this node's certificate: {why}"));
    }
    let text = match alert {
        46 => "refused this node's certificate",
        49 => "denied access",
        116 => "wants a certificate, and this node has none",
        70 => "speaks another version of TLS",
        ALERT_NO_ALPN => return Some(no_alpn()),
        alert if alert < 0x100 => {
            return Some(format!("broke off the TLS handshake, alert {alert}"));
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn no_alpn() -> String {
    let ours = String::from_utf8_lossy(ALPN);
    format!(
        "is another service, or another version of memberlist over QUIC: it does not speak {ours}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_found_again() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::of(code.code()), Some(code));
        }
        assert_eq!(CloseCode::of(VarInt::from_u32(99)), None);
    }

    /// Nothing that a peer says makes a line of its own in a log.
    #[test]
    fn reasons_stay_in_one_line() {
        let close = ConnectionClose {
            error_code: quinn::TransportErrorCode::NO_ERROR,
            frame_type: None,
            reason: "bye\nWARN: \x1b[31mall is lost".into(),
        };
        let text = in_words(&ConnectionError::ConnectionClosed(close));
        assert!(text.contains("bye WARN") && !text.chars().any(char::is_control), "{text:?}");
    }

    #[test]
    fn alerts_are_told_in_words() {
        assert!(alert_in_words(0x100 + 43).unwrap().contains("clientAuth"));
        assert!(alert_in_words(0x100 + 48).unwrap().contains("CA"));
        assert!(alert_in_words(0x100 + 120).unwrap().contains("memberlist/1"));
        assert!(alert_in_words(0x100 + 80).unwrap().contains("80"));
        assert_eq!(alert_in_words(7), None);
        assert_eq!(alert_in_words(0x200), None);
    }
}
