//! What TLS is to nodes.

use std::{fmt, io, sync::Arc, time::SystemTime};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::SingleCertAndKey,
};
use tokio::sync::watch;

use super::{
    PlainText,
    files::{FileError, Identity, provider, roots},
};
use crate::{
    cluster::topology::{Node, Topology},
    config::NodeTls,
    protocol::address::Address,
};

/// How connections to nodes are secured: by what is in force when they are made.
#[derive(Clone, Debug)]
pub struct ToNodes {
    trusted: watch::Receiver<Arc<Trusted>>,
    /// Where nodes are known by their names, once they are known.
    topology: Option<watch::Receiver<Arc<Topology>>>,
}

/// What is in force.
pub struct Trusted {
    config: Arc<ClientConfig>,
    verifier: Option<Arc<WebPkiServerVerifier>>,
    /// The name that all nodes' certificates are for.
    name: Option<ServerName<'static>>,
    /// When the first certificate of the proxy's own chain ends, if it has one.
    pub valid_until: Option<SystemTime>,
}

impl Trusted {
    /// Reads the files.
    ///
    /// # Errors
    /// A file is missing, or of no use.
    pub fn load(settings: &NodeTls) -> Result<Trusted, FileError> {
        let identity = settings.pair.as_ref().map(Identity::load).transpose()?;
        let valid_until = identity.as_ref().map(|identity| identity.valid_until);
        let verifier = if settings.is_unchecked { None } else { Some(verifier(settings)?) };
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.map_err(|why| FileError::of_key("node_tls", why.to_string()))?.dangerous();
        let config = match &verifier {
            Some(verifier) => config.with_custom_certificate_verifier(verifier.clone()),
            None => config.with_custom_certificate_verifier(Verifier::of_all()),
        };
        let config = match identity {
            Some(own) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified))),
            None => config.with_no_client_auth(),
        };
        Ok(Trusted { config: Arc::new(config), verifier, name: settings.name.clone(), valid_until })
    }
}

fn verifier(settings: &NodeTls) -> Result<Arc<WebPkiServerVerifier>, FileError> {
    let roots = match &settings.ca {
        Some(file) => roots(file)?,
        None => of_the_system()?,
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    verifier.map_err(|why| FileError::of_key("node_tls_ca_cert_file", why.to_string()))
}

/// The CAs that this machine trusts.
fn of_the_system() -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let why = "this system has no CAs of its own (package ca-certificates): name the file with the one of the nodes (PEM)";
        return Err(FileError::of_key("node_tls_ca_cert_file", why));
    }
    Ok(roots)
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trusted").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ToNodes {
    /// By what is in force there; with nodes' names from there, where they are known.
    pub fn new(trusted: watch::Receiver<Arc<Trusted>>, topology: Option<watch::Receiver<Arc<Topology>>>) -> ToNodes {
        ToNodes { trusted, topology }
    }

    /// A connection to the node at `target` that has yet to agree on anything.
    ///
    /// # Errors
    /// No certificate can be for such a name.
    pub(in super::super) fn connection(&self, target: &Address) -> io::Result<ClientConnection> {
        let trusted = self.trusted.borrow().clone();
        let mut names = match &trusted.name {
            Some(name) => vec![name.clone()],
            None => self.names(target),
        };
        if names.is_empty() {
            return Err(io::Error::other(format!("`{}` is no name that a certificate could be for", target.host)));
        }
        let (first, others) = (names.remove(0), names);
        let config = match &trusted.verifier {
            Some(inner) if !others.is_empty() => {
                let mut config = ClientConfig::clone(&trusted.config);
                config.dangerous().set_certificate_verifier(Verifier::of_any_name(inner.clone(), others));
                Arc::new(config)
            }
            _ => trusted.config.clone(),
        };
        ClientConnection::new(config, first).map_err(io::Error::other)
    }

    /// What the certificate of the node at `target` may be for: its names, as the cluster tells them, and what is dialled.
    fn names(&self, target: &Address) -> Vec<ServerName<'static>> {
        let topology = self.topology.as_ref().map(|topology| topology.borrow().clone());
        let node = topology.as_ref().and_then(|known| known.nodes.iter().find(|node| node.reach == *target));
        names_of(node.map(|node| &**node), target)
    }
}

/// Names before addresses: the first is also told to the node (SNI), and that can only be a name.
fn names_of(node: Option<&Node>, target: &Address) -> Vec<ServerName<'static>> {
    let told = node.into_iter().flat_map(|node| std::iter::once(&node.announced.host).chain(&node.aliases));
    let mut names: Vec<ServerName<'static>> = Vec::new();
    for host in told.chain([&target.host]) {
        if let Ok(name) = ServerName::try_from(host.clone())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names.sort_by_key(|name| !matches!(name, ServerName::DnsName(_)));
    names
}

/// Whose certificates are taken.
#[derive(Debug)]
enum Trust {
    /// Anybody's: as the operator has said, in a key with `insecure` in its name.
    All,
    /// Those that the CAs have given out, for the name that the connection is made with or any of these.
    AnyName(Arc<WebPkiServerVerifier>, Vec<ServerName<'static>>),
}

/// Judges certificates. What their owners sign has to be signed well in any case.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Takes any certificate.
    pub(super) fn of_all() -> Arc<Verifier> {
        Arc::new(Verifier { trust: Trust::All, provider: provider() })
    }

    /// Takes a certificate for any of a node's names; `others` are beside the one that the connection is made with.
    fn of_any_name(inner: Arc<WebPkiServerVerifier>, others: Vec<ServerName<'static>>) -> Arc<Verifier> {
        Arc::new(Verifier { trust: Trust::AnyName(inner, others), provider: provider() })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trust::AnyName(inner, others) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let is_for = |name| inner.verify_server_cert(certificate, chain, name, ocsp, now);
        let first = is_for(name);
        if !matches!(&first, Err(Error::InvalidCertificate(why)) if is_about_the_name(why)) {
            return first;
        }
        others.iter().map(is_for).find(Result::is_ok).unwrap_or(first)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a node and the proxy do not come to speak TLS, and what to do about it; any other error in its own words.
pub fn why(error: &io::Error) -> String {
    let Some(inner) = error.get_ref() else { return error.to_string() };
    if inner.is::<PlainText>() {
        return "it speaks plain text: leave `node_tls` and rediss:// away, or name its TLS port".to_owned();
    }
    match inner.downcast_ref::<Error>() {
        Some(Error::InvalidCertificate(why)) => format!("its certificate {}", of_a_node(why)),
        Some(Error::AlertReceived(alert)) if wants_a_certificate(*alert) => format!(
            "it does not take our certificate, or wants one ({alert:?}): see `node_tls_cert_file` and `node_tls_key_file`, \
             and `tls-ca-cert-file` at the node"
        ),
        Some(Error::PeerIncompatible(why)) => format!("nothing in common ({why:?}): TLS 1.2 and 1.3 are spoken here"),
        Some(why) => why.to_string(),
        None => error.to_string(),
    }
}

fn of_a_node(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => {
            "is of no CA that is trusted here: `node_tls_ca_cert_file` names the file with the nodes' CA".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "is not for {} but for {}: name the seeds as in the certificate, have nodes announce that name \
             (cluster-announce-hostname), or set `node_tls_server_name`",
            expected.to_str(),
            if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") }
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet: is a clock wrong?".to_owned()
        }
        why => format!("is not accepted: {why}"),
    }
}

fn is_about_the_name(why: &CertificateError) -> bool {
    matches!(why, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
}

fn wants_a_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::CertificateRequired
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::HandshakeFailure
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_goes_by_its_names_and_by_what_is_dialled() {
        let of = |node: Option<&Node>, dialled: &str| {
            let names = names_of(node, &Address::new(dialled, 7000));
            names.iter().map(|name| name.to_str().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of(None, "redis-7000"), ["redis-7000"]);
        assert_eq!(of(None, "10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(of(None, "::1"), ["::1"]);
        assert!(of(None, "no name").is_empty());
        let mut node = Node::clone(&Node::primary("10.0.0.1", "10.0.0.1:1"));
        assert_eq!(of(Some(&node), "10.0.0.1"), ["10.0.0.1"]);
        node.aliases = vec!["redis-1.example".to_owned()];
        assert_eq!(of(Some(&node), "10.0.0.1"), ["redis-1.example", "10.0.0.1"]);
        assert_eq!(of(Some(&node), "127.0.0.1"), ["redis-1.example", "10.0.0.1", "127.0.0.1"]);
    }
}
