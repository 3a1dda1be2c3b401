//! What TLS is to clients, and to visitors of the admin port.

use std::{fmt, io, sync::Arc, time::SystemTime};

use rustls::{
    AlertDescription, CertificateError, Error, ServerConfig, ServerConnection,
    crypto::ring::Ticketer,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use tokio::sync::watch;

use super::{
    PlainText,
    files::{FileError, Identity, provider, roots},
};
use crate::config::{AuthClients, ClientTls};

/// How connections of clients are secured: by the certificates that are in force when they come.
#[derive(Clone, Debug)]
pub struct ForClients {
    served: watch::Receiver<Arc<Served>>,
    are_visitors: bool,
}

/// What is in force.
pub struct Served {
    clients: Arc<ServerConfig>,
    /// Scrapers and probes have no certificates to show.
    visitors: Arc<ServerConfig>,
    /// When the first certificate of the chain ends.
    pub valid_until: SystemTime,
}

impl Served {
    /// Reads the files. Sessions that clients resume are those of these very certificates: nobody gets in by an old one.
    ///
    /// # Errors
    /// A file is missing, or of no use.
    pub fn load(settings: &ClientTls) -> Result<Served, FileError> {
        let identity = Identity::load(&settings.pair)?;
        let refused = |why: Error| FileError::new(&settings.pair.certificate, why.to_string());
        let own = Arc::new(SingleCertAndKey::from(identity.certified));
        let of = |verifier| {
            let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
            let mut config = config?.with_client_cert_verifier(verifier).with_cert_resolver(own.clone());
            config.ticketer = Ticketer::new()?;
            Ok(Arc::new(config))
        };
        Ok(Served {
            clients: of(verifier(settings)?).map_err(refused)?,
            visitors: of(Arc::new(NoClientAuth)).map_err(refused)?,
            valid_until: identity.valid_until,
        })
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("valid_until", &self.valid_until).finish_non_exhaustive()
    }
}

fn verifier(settings: &ClientTls) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
    let (AuthClients::Optional | AuthClients::Yes, Some(ca)) = (settings.auth, &settings.ca) else {
        return Ok(Arc::new(NoClientAuth));
    };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
    let verifier = if settings.auth == AuthClients::Optional { verifier.allow_unauthenticated() } else { verifier };
    verifier.build().map_err(|why| FileError::new(ca, why.to_string()))
}

impl ForClients {
    /// By what is in force there.
    pub fn new(served: watch::Receiver<Arc<Served>>) -> ForClients {
        ForClients { served, are_visitors: false }
    }

    /// The same for visitors of the admin port, who are not asked for certificates.
    pub fn for_visitors(self) -> ForClients {
        ForClients { are_visitors: true, ..self }
    }

    /// What the next connection is secured by.
    pub(in super::super) fn config(&self) -> Arc<ServerConfig> {
        let served = self.served.borrow();
        if self.are_visitors { served.visitors.clone() } else { served.clients.clone() }
    }
}

/// A connection that has yet to agree on anything.
pub(in super::super) fn connection(config: Arc<ServerConfig>) -> io::Result<ServerConnection> {
    ServerConnection::new(config).map_err(io::Error::other)
}

/// Why a client and the proxy have not come to speak TLS.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// The client does not speak TLS.
    PlainText,
    /// The client has no certificate, or one that does not count here; or ours does not count there. Why.
    Certificate(String),
    /// Something else. Why.
    Otherwise(String),
    /// The client has gone without a word.
    Gone,
}

impl Failed {
    /// What the error of a handshake means.
    pub fn of(error: &io::Error) -> Failed {
        let Some(inner) = error.get_ref() else { return Failed::Gone };
        if inner.is::<PlainText>() {
            return Failed::PlainText;
        }
        match inner.downcast_ref::<Error>() {
            Some(Error::NoCertificatesPresented) => {
                Failed::Certificate("it has shown no certificate, and `tls_auth_clients` is yes".to_owned())
            }
            Some(Error::InvalidCertificate(why)) => Failed::Certificate(format!("its certificate {}", of_theirs(why))),
            Some(Error::AlertReceived(alert)) if is_about_certificates(*alert) => Failed::Certificate(format!(
                "it does not accept our certificate ({alert:?}): does it know the CA, and is the name that it asks for in \
                 `tls_cert_file`?"
            )),
            Some(Error::PeerIncompatible(why)) => {
                Failed::Otherwise(format!("nothing in common ({why:?}): TLS 1.2 and 1.3 are spoken here"))
            }
            Some(why) => Failed::Otherwise(why.to_string()),
            None => Failed::Otherwise(error.to_string()),
        }
    }
}

fn of_theirs(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "is of no CA in `tls_ca_cert_file`".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not one for clients (extendedKeyUsage clientAuth)".to_owned()
        }
        why => format!("is not accepted: {why}"),
    }
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription::*;
    matches!(
        alert,
        BadCertificate
            | UnsupportedCertificate
            | CertificateRevoked
            | CertificateExpired
            | CertificateUnknown
            | UnknownCA
    )
}
