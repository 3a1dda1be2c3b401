//! How a client and the proxy come to speak TLS, or why they do not.

use std::{future::poll_fn, io, pin::pin, task::Poll, time::Duration};

use tokio::time::sleep;

use crate::{
    clients::{Client, Clients, Order},
    metrics::{ClientTally, Handshake},
    protocol::says,
    upstream::transport::{Stream, tls::for_clients::Failed},
};

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Completes the TLS handshake of a client that has come to a port of TLS; others need none. False where it has failed,
/// which
/// is counted and logged.
pub(super) async fn is_agreed(stream: &mut Stream, client: &Client, clients: &Clients, tally: &ClientTally) -> bool {
    if !stream.is_secured() {
        return true;
    }
    let mut patience = pin!(sleep(PATIENCE));
    let agreed = poll_fn(|cx| {
        client.wake_with(cx.waker());
        if client.order() != Order::Serve {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match patience.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => stream.poll_handshake(cx),
        }
    });
    let Err(error) = agreed.await else {
        tally.handshake(Handshake::Agreed);
        return true;
    };
    let failed = Failed::of(&error);
    tally.handshake(match failed {
        Failed::PlainText => Handshake::PlainText,
        Failed::Certificate(_) => Handshake::Certificate,
        Failed::Otherwise(_) => Handshake::Failed,
        Failed::Gone => Handshake::Gone,
    });
    let (peer, local, complaints) = (client.peer(), client.local(), &clients.complaints);
    match failed {
        Failed::PlainText => {
            stream.say_plainly(format!("-{}\r\n", says::SPEAKS_TLS).as_bytes());
            if complaints.plain_text.may_be_told() {
                tracing::warn!(
                    "client {peer} speaks plain text to rediss://{local}, which speaks TLS: have it connect to a redis:// \
                     port, or by TLS (rediss://, redis-cli --tls)"
                );
            }
        }
        Failed::Certificate(why) => {
            if complaints.certificate.may_be_told() {
                tracing::warn!("client {peer} cannot come in by rediss://{local}: {why}");
            }
        }
        Failed::Otherwise(why) => {
            if complaints.otherwise.may_be_told() {
                tracing::warn!("client {peer} and rediss://{local} do not come to speak TLS: {why}");
            }
        }
        Failed::Gone => {}
    }
    false
}
