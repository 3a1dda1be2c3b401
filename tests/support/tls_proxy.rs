//! A proxy that speaks TLS to its clients.

use std::{io, sync::Arc};

use rustls::ClientConfig;

use super::{Authority, Client, Issued, Proxy, Settings, cluster::shared, ports::free_port};

/// A proxy that speaks TLS on a port beside the plain one.
pub struct TlsProxy {
    /// Who has issued its certificate.
    pub authority: Authority,
    /// Its own certificate and key.
    pub own: Issued,
    /// Where it speaks TLS.
    pub port: u16,
    /// The proxy itself.
    pub proxy: Proxy,
}

impl TlsProxy {
    /// With settings beyond the usual ones, and parts of what it may log as warnings.
    pub fn start(authority: Authority, own: Issued, more: &[(&str, String)], expected: &[&str]) -> TlsProxy {
        let mut settings = Settings::new(shared().seeds())
            .with("TLS_CERT_FILE", own.certificate.display())
            .with("TLS_KEY_FILE", own.key.display());
        for (name, value) in more {
            settings = settings.with(name, value);
        }
        for part in expected {
            settings = settings.expecting(part);
        }
        let port = free_port();
        settings.flags = vec!["--listen".to_owned(), format!("rediss://127.0.0.1:{port}")];
        TlsProxy { authority, own, port, proxy: Proxy::start(settings) }
    }

    /// Where it speaks TLS.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client that trusts whom `config` says.
    pub fn client_by(&self, config: Arc<ClientConfig>) -> io::Result<Client> {
        Client::try_connect_tls(&self.address(), "localhost", config)
    }

    /// A client that trusts the issuer of the proxy's certificate, with a certificate of its own or none.
    pub fn client_as(&self, own: Option<&Issued>) -> io::Result<Client> {
        self.client_by(self.authority.trusting(own))
    }

    /// A client without a certificate.
    pub fn client(&self) -> Client {
        self.client_as(None).expect("a client by TLS")
    }
}
