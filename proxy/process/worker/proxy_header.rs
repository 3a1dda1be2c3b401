//! What a load balancer says ahead of a client's bytes: whose they are (PROXY protocol, version 2).

use std::{future::poll_fn, io, net::SocketAddr, pin::pin, task::Poll, time::Duration};

use ipnet::IpNet;
use ppp::v2::{Addresses, Command, Header};
use tokio::time::sleep;

use crate::{
    clients::{Client, Clients, Order},
    protocol::endpoint::Endpoint,
    upstream::transport::Stream,
};

/// How long the header may take to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the head of a header is: a signature, what it is about, and the length of the rest.
const HEAD: usize = 16;
/// The longest rest that is read: load balancers say some hundred bytes.
const LONGEST: usize = 4096;

/// Reads the header; the client is known by the addresses in it from then on. False where none has come in time, it is
/// malformed, or its sender is not trusted: that is logged.
pub(super) async fn is_read(stream: &mut Stream, client: &Client, clients: &Clients, trusted: &[IpNet]) -> bool {
    let said = match client.peer() {
        Endpoint::Tcp(peer) if !is_trusted(peer, trusted) => {
            Err(Some(format!("{} is in none of the networks of `trusted_proxies`", peer.ip().to_canonical())))
        }
        // The mode of a unix socket's file says who may connect.
        Endpoint::Tcp(_) | Endpoint::Unix(_) => within_patience(client, read(stream)).await,
    };
    match said {
        Ok(Some((peer, local))) => {
            client.stands_for(peer.into(), local.into());
            true
        }
        // The load balancer speaks for itself: a health check.
        Ok(None) => true,
        Err(why) => {
            if let Some(why) = why
                && clients.complaints.proxy_header.may_be_told()
            {
                let (peer, local) = (client.peer(), client.local());
                tracing::warn!(
                    "{peer} has come to {local}, where a PROXY header is expected (`proxy_protocol`), and is closed: {why}"
                );
            }
            false
        }
    }
}

/// From where to where the client has connected; `None` where it is the load balancer itself, or there are no such addresses.
type Said = Option<(SocketAddr, SocketAddr)>;

fn is_trusted(peer: &SocketAddr, trusted: &[IpNet]) -> bool {
    let address = peer.ip().to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// What `read` brings; an error without a text where the other end has gone without a word, or the client has to go.
async fn within_patience(
    client: &Client,
    read: impl Future<Output = Result<Said, Option<String>>>,
) -> Result<Said, Option<String>> {
    let (mut patience, mut read) = (pin!(sleep(PATIENCE)), pin!(read));
    poll_fn(|cx| {
        client.wake_with(cx.waker());
        if client.order() != Order::Serve {
            return Poll::Ready(Err(None));
        }
        match patience.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Some(format!("it has sent none within {PATIENCE:?}")))),
            Poll::Pending => read.as_mut().poll(cx),
        }
    })
    .await
}

async fn read(stream: &mut Stream) -> Result<Said, Option<String>> {
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => None,
        _ => Some(error.to_string()),
    };
    let mut header = vec![0; HEAD];
    stream.read_ahead_of_tls(&mut header).await.map_err(broken)?;
    let rest = length(&header).map_err(|why| Some(why.to_owned()))?;
    header.resize(HEAD + rest, 0);
    stream.read_ahead_of_tls(&mut header[HEAD..]).await.map_err(broken)?;
    parse(&header).map_err(Some)
}

/// How long what follows the head is.
fn length(head: &[u8]) -> Result<usize, &'static str> {
    if head.starts_with(b"PROXY ") {
        return Err("it speaks version 1 of the PROXY protocol: have it speak version 2 (send-proxy-v2)");
    }
    if !head.starts_with(ppp::v2::PROTOCOL_PREFIX) {
        return Err(
            "it does not begin with a PROXY header: connect to another port, or have the load balancer send one",
        );
    }
    let length = head[14..HEAD].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > LONGEST { Err("its PROXY header is too long") } else { Ok(length) }
}

fn parse(header: &[u8]) -> Result<Said, String> {
    let header = Header::try_from(header).map_err(|error| format!("its PROXY header is malformed: {error}"))?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(said)) => Some((
            (said.source_address, said.source_port).into(),
            (said.destination_address, said.destination_port).into(),
        )),
        (Command::Proxy, Addresses::IPv6(said)) => Some((
            (said.source_address, said.source_port).into(),
            (said.destination_address, said.destination_port).into(),
        )),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [ppp::v2::PROTOCOL_PREFIX, &[0x20 | command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
    }

    #[test]
    fn headers_are_read_and_what_is_none_is_said() {
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0x18, 0xEC];
        let six = [[0; 15].as_slice(), &[1], &[0; 15], &[2], &[0, 7, 0, 8]].concat();
        let said = |source: &str, destination: &str| Ok(Some((source.parse().unwrap(), destination.parse().unwrap())));
        assert_eq!(parse(&header(1, 0x11, &four)), said("192.0.2.1:4660", "10.0.0.1:6380"));
        assert_eq!(parse(&header(1, 0x21, &six)), said("[::1]:7", "[::2]:8"));
        // What follows the addresses is of no concern here.
        assert_eq!(
            parse(&header(1, 0x11, &[&four[..], &[4, 0, 1, 0]].concat())),
            said("192.0.2.1:4660", "10.0.0.1:6380")
        );
        assert_eq!(parse(&header(0, 0x00, b"")), Ok(None), "the load balancer itself");
        assert_eq!(parse(&header(0, 0x11, &four)), Ok(None));
        assert_eq!(parse(&header(1, 0x00, b"")), Ok(None), "it does not tell");
        assert!(parse(&header(1, 0x11, &four[..8])).unwrap_err().contains("malformed"));
        assert!(parse(&header(5, 0x11, &four)).unwrap_err().contains("malformed"));
        assert_eq!(length(&header(1, 0x11, &four)), Ok(12));
        for (head, why) in [
            (&b"PROXY TCP4 192.0"[..], "version 1"),
            (b"*1\r\n$4\r\nPING\r\n..", "does not begin with a PROXY header"),
            (&[ppp::v2::PROTOCOL_PREFIX, b"\x21\x11\xff\xff"].concat(), "too long"),
        ] {
            assert!(length(head).unwrap_err().contains(why));
        }
    }

    #[test]
    fn only_some_are_trusted() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap()).into();
        for (peer, expected) in [
            ("10.1.2.3:4", true),
            ("[::ffff:10.1.2.3]:4", true),
            ("[::1]:4", true),
            ("11.0.0.1:4", false),
            ("[::2]:4", false),
        ] {
            assert_eq!(is_trusted(&peer.parse().unwrap(), &trusted), expected, "{peer}");
        }
    }
}
