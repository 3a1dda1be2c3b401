//! A TCP relay on another loopback address, and an address that swallows connection attempts: what a network between
//! containers does to those outside it.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use socket2::{Domain, Socket, Type};

/// Passes what connects to `from` on to `to`, until the test process ends.
pub fn relay(from: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(from)?;
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(to) else { continue };
            for (mut source, mut target) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))]
                .into_iter()
                .filter_map(|(a, b)| a.ok().zip(b.ok()))
            {
                thread::spawn(move || {
                    let _ = io::copy(&mut source, &mut target);
                    let _ = target.shutdown(Shutdown::Both);
                    let _ = source.shutdown(Shutdown::Both);
                });
            }
        }
    });
    Ok(())
}

/// An address that answers no SYN: connecting to it hangs, as it does with a host that is not there.
pub struct BlackHole {
    _listener: Socket,
    _fill: Vec<Socket>,
}

impl BlackHole {
    /// Makes `address` swallow connection attempts: its queue is full and nobody accepts.
    pub fn at(address: SocketAddr) -> io::Result<BlackHole> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.bind(&address.into())?;
        listener.listen(0)?;
        let mut fill = Vec::new();
        for _ in 0..4 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            let _ = socket.connect(&address.into());
            fill.push(socket);
        }
        Ok(BlackHole { _listener: listener, _fill: fill })
    }
}
