//! TLS to a proxy on this machine, to ask whether it is well.

use std::{io, net::TcpStream, sync::Arc};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use super::{files::provider, to_nodes::Verifier};

/// TLS over a connection to this machine. The certificate is not looked at: it is hardly one for 127.0.0.1, and nothing is
/// told that would be a secret.
///
/// # Errors
/// There is no TLS to be had.
pub fn secured(socket: TcpStream) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::from(socket.peer_addr()?.ip());
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.dangerous();
    let config = config.with_custom_certificate_verifier(Verifier::of_all()).with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, socket))
}
