//! `slotway healthcheck`: for images without a shell or curl.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use slotway::{config::Config, protocol::names::Name, upstream::transport::tls::to_ourselves};

use super::{Failure, flags::AdminFlags, say};

/// Less than the shortest timeout that container engines are told in our examples.
const PATIENCE: Duration = Duration::from_millis(1500);
/// More than any answer of `/readyz`.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Succeeds where `/readyz` says 200.
pub fn run(flags: &AdminFlags) -> Result<(), Failure> {
    let config = Config::load(&flags.sources())?;
    let Some(address) = config.admin else {
        return Err(Failure::Config("the admin port is off, so that nothing can be asked; set `admin`".to_owned()));
    };
    match readyz(address, config.admin_tls) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => {
            say("ready");
            Ok(())
        }
        Ok(answer) => Err(Failure::of("not ready", body(&answer))),
        Err(error) => Err(Failure::Other(Name::NoProxy.on(format!("no answer from {}: {error}", near(address))))),
    }
}

/// What stands behind the head of an answer.
pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim())
}

/// What `/readyz` answers, head and all; by TLS where that is spoken.
pub fn readyz(address: SocketAddr, by_tls: bool) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&near(address), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if by_tls { answer(to_ourselves::secured(stream)?, address) } else { answer(stream, address) }
}

fn answer(mut stream: impl Read + Write, address: SocketAddr) -> io::Result<String> {
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Where to connect to what listens on this address: "every interface" is no place to connect to.
pub fn near(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
