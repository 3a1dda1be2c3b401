//! What the keys about TLS say together.

use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;

use super::{Config, ConfigError};
use crate::protocol::endpoint::ListenAddress;

/// Whether clients show a certificate, as `tls-auth-clients` of Redis has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthClients {
    /// Clients are not asked for a certificate.
    No,
    /// Clients may show a certificate; one that is shown must be valid.
    Optional,
    /// Clients must show a valid certificate.
    Yes,
}

/// A file, and the key that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFile {
    /// The key.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// A certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, with those of CAs between it and the root behind it.
    pub certificate: TlsFile,
    /// The key.
    pub key: TlsFile,
}

/// How clients are served by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// The proxy's certificate and key.
    pub pair: Pair,
    /// The CAs of clients.
    pub ca: Option<TlsFile>,
    /// Whether clients show a certificate.
    pub auth: AuthClients,
}

/// How TLS is spoken to the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTls {
    /// The nodes' CA; `None`: the CAs of the system.
    pub ca: Option<TlsFile>,
    /// The proxy's certificate and key, for nodes that ask for one.
    pub pair: Option<Pair>,
    /// The name that every node's certificate must be for; `None`: the host that is dialled.
    pub name: Option<ServerName<'static>>,
    /// Whether any certificate of a node is accepted.
    pub is_unchecked: bool,
}

impl ClientTls {
    /// All files that are read for it.
    pub fn files(&self) -> Vec<TlsFile> {
        [&self.pair.certificate, &self.pair.key].into_iter().chain(&self.ca).cloned().collect()
    }
}

impl NodeTls {
    /// All files that are read for it.
    pub fn files(&self) -> Vec<TlsFile> {
        let pair = self.pair.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        pair.chain(&self.ca).cloned().collect()
    }
}

impl TlsFile {
    fn of(key: &'static str, path: Option<&Path>) -> Option<TlsFile> {
        path.map(|path| TlsFile { key, path: path.to_owned() })
    }
}

impl Config {
    /// How clients are served by TLS; `None` where none is.
    ///
    /// # Errors
    /// A file that is needed is not named.
    pub fn client_tls(&self) -> Result<Option<ClientTls>, ConfigError> {
        let listener = self.addresses().find(|address| matches!(address, ListenAddress::Tls(_)));
        let admin = || (self.admin_tls && self.admin.is_some()).then(|| "the admin port (`admin_tls`)".to_owned());
        let Some(wanted_by) = listener.map(ToString::to_string).or_else(admin) else { return Ok(None) };
        let certificate = TlsFile::of("tls_cert_file", self.tls_cert_file.as_deref());
        let key = TlsFile::of("tls_key_file", self.tls_key_file.as_deref());
        let (Some(certificate), Some(key)) = (certificate, key) else {
            return Err(ConfigError::NoCertificate { wanted_by });
        };
        let ca = TlsFile::of("tls_ca_cert_file", self.tls_ca_cert_file.as_deref());
        let auth = self.auth_clients();
        if auth != AuthClients::No && ca.is_none() {
            return Err(ConfigError::NoCa);
        }
        Ok(Some(ClientTls { pair: Pair { certificate, key }, ca, auth }))
    }

    /// How TLS is spoken to the nodes; `None` where it is not.
    ///
    /// # Errors
    /// A file that is needed is not named.
    pub fn node_tls(&self) -> Result<Option<NodeTls>, ConfigError> {
        if !self.node_tls && !self.seeds.are_secured() {
            return Ok(None);
        }
        let certificate = TlsFile::of("node_tls_cert_file", self.node_tls_cert_file.as_deref());
        let key = TlsFile::of("node_tls_key_file", self.node_tls_key_file.as_deref());
        let pair = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Pair { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(ConfigError::HalfAPair { missing: "node_tls_key_file" }),
            (None, Some(_)) => return Err(ConfigError::HalfAPair { missing: "node_tls_cert_file" }),
        };
        Ok(Some(NodeTls {
            ca: TlsFile::of("node_tls_ca_cert_file", self.node_tls_ca_cert_file.as_deref()),
            pair,
            name: self.node_tls_server_name.clone(),
            is_unchecked: self.node_tls_insecure_skip_verify,
        }))
    }

    /// Whether TLS is spoken to nodes, and any certificate of theirs accepted.
    pub fn speaks_unchecked_tls(&self) -> bool {
        self.node_tls_insecure_skip_verify && (self.node_tls || self.seeds.are_secured())
    }

    /// Whether clients by TLS show a certificate.
    pub fn auth_clients(&self) -> AuthClients {
        let by_ca = if self.tls_ca_cert_file.is_some() { AuthClients::Yes } else { AuthClients::No };
        self.tls_auth_clients.unwrap_or(by_ca)
    }
}
