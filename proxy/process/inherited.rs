//! Listening sockets that are there before the process: from the service manager (socket activation: `LISTEN_FDS`), or from
//! the process whose place this one takes.

use std::{io, os::fd::OwnedFd};

use listenfd::ListenFd;
use socket2::Socket;

use crate::protocol::endpoint::ListenAddress;

/// Passed sockets that no listener has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
    /// Whether the files of unix sockets go when they are listened on no more: not where somebody else made them.
    pub owns_files: bool,
}

impl Inherited {
    /// From the service manager; none where there is none.
    ///
    /// # Errors
    /// The service manager passes something other than a stream's socket.
    pub fn from_service_manager() -> io::Result<Inherited> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let unix = passed.take_unix_listener(index).ok().flatten().map(OwnedFd::from);
            let found = match unix {
                Some(found) => Some(found),
                None => passed.take_tcp_listener(index)?.map(OwnedFd::from),
            };
            sockets.extend(found.map(Socket::from));
        }
        Ok(Inherited { sockets, owns_files: false })
    }

    /// From the process whose place this one takes.
    pub fn from_predecessor(sockets: Vec<OwnedFd>) -> Inherited {
        Inherited { sockets: sockets.into_iter().map(Socket::from).collect(), owns_files: true }
    }

    /// The socket that is bound to this address, for a listener to use; `None` where none has been passed.
    pub fn take(&mut self, address: &ListenAddress) -> Option<Socket> {
        let index = self.sockets.iter().position(|socket| listens_at(socket, address))?;
        let socket = self.sockets.swap_remove(index);
        socket.set_nonblocking(true).is_ok().then_some(socket)
    }

    /// The addresses of the sockets that no listener has taken.
    pub fn left(&self) -> Vec<String> {
        let name = |socket: &Socket| {
            let address = socket.local_addr().ok()?;
            let path = address.as_pathname().map(|path| path.display().to_string());
            path.or_else(|| address.as_socket().map(|address| address.to_string()))
        };
        self.sockets.iter().filter_map(name).collect()
    }
}

fn listens_at(socket: &Socket, address: &ListenAddress) -> bool {
    let Ok(at) = socket.local_addr() else { return false };
    match (address.tcp(), address.path()) {
        (Some(wanted), _) => at.as_socket().is_some_and(|at| {
            // `ListenStream=6380` is [::]:6380, which is IPv4's every address too.
            at == wanted || at.port() == wanted.port() && at.ip().is_unspecified() && wanted.ip().is_unspecified()
        }),
        (None, Some(path)) => at.as_pathname().is_some_and(|at| at.as_os_str() == path),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_is_taken_by_who_names_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut inherited = Inherited::from_predecessor(vec![listener.into()]);
        assert!(inherited.take(&"127.0.0.1:1".parse().unwrap()).is_none());
        assert_eq!(inherited.left(), [address.to_string()]);
        assert!(inherited.take(&ListenAddress::Tls(address)).is_some());
        assert!(inherited.left().is_empty());
    }
}
