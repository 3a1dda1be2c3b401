//! The admin port's listener. A few open files are kept back for it; beyond them it takes only files that are free. A visitor
//! that speaks TLS to a plain port, or plain HTTP to a TLS port, gets a line in the log that says so.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    clients::Complaints,
    protocol::{endpoint::Endpoint, says},
    upstream::{
        descriptors::{Descriptor, Descriptors},
        transport::{Listener, Stream, tls::for_clients::Failed},
    },
};

/// Connections that always find a place: probes, a scrape, an operator who looks what is wrong.
const KEPT_BACK: usize = 8;
/// The first byte of TLS, which begins no method of HTTP.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long a full file table is left alone before the next connection is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Accepts a connection only where there is an open file for it.
pub struct Bounded {
    listener: Listener,
    kept_back: Arc<Semaphore>,
    descriptors: Arc<Descriptors>,
    complaints: Arc<Complaints>,
}

/// A connection to the admin port.
pub struct AdminStream {
    stream: Stream,
    /// The two ends of the connection; taken when its first bytes have come.
    is_new: Option<[Endpoint; 2]>,
    complaints: Arc<Complaints>,
    _file: OpenFile,
}

/// A place among the open files, given back when it is dropped.
#[expect(dead_code, reason = "held for its end only")]
enum OpenFile {
    KeptBack(OwnedSemaphorePermit),
    Shared(Descriptor),
}

impl Bounded {
    pub fn new(listener: Listener, descriptors: Arc<Descriptors>) -> Bounded {
        Bounded { listener, kept_back: Arc::new(Semaphore::new(KEPT_BACK)), descriptors, complaints: Arc::default() }
    }

    async fn place(&self) -> OpenFile {
        if let Ok(permit) = self.kept_back.clone().try_acquire_owned() {
            return OpenFile::KeptBack(permit);
        }
        if let Some(descriptor) = self.descriptors.try_take() {
            return OpenFile::Shared(descriptor);
        }
        match self.kept_back.clone().acquire_owned().await {
            Ok(permit) => OpenFile::KeptBack(permit),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = AdminStream;
    type Addr = Endpoint;

    async fn accept(&mut self) -> (AdminStream, Endpoint) {
        let place = self.place().await;
        loop {
            match self.listener.accept().await {
                Ok(arrival) => {
                    let (peer, local) = (arrival.peer.clone(), arrival.local.clone());
                    if let Ok(stream) = arrival.into_stream() {
                        let (is_new, complaints) = (Some([peer.clone(), local]), self.complaints.clone());
                        return (AdminStream { stream, is_new, complaints, _file: place }, peer);
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin port cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        self.listener.address()
    }
}

impl AdminStream {
    /// Looks at the first bytes, or at the failed handshake in their place, for a visitor that speaks the wrong protocol.
    fn begins(&mut self, begun: Result<&[u8], &io::Error>) {
        let Some([peer, local]) = self.is_new.take() else { return };
        match begun {
            Err(error) if matches!(Failed::of(error), Failed::PlainText) => {
                self.stream.say_plainly(says::ADMIN_SPEAKS_TLS.as_bytes());
                if self.complaints.plain_text.may_be_told() {
                    tracing::warn!(
                        "visitor {peer} speaks plain HTTP to the admin port {local}, which speaks TLS (`admin_tls`): have it use \
                         https://"
                    );
                }
            }
            Ok([TLS_HANDSHAKE, ..]) if !self.stream.is_secured() && self.complaints.tls.may_be_told() => {
                tracing::warn!(
                    "visitor {peer} speaks TLS to the admin port {local}, which speaks plain HTTP: have it use http://, or set \
                     `admin_tls`"
                );
            }
            _ => {}
        }
    }
}

impl AsyncRead for AdminStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match &read {
            Poll::Ready(Ok(())) => self.begins(Ok(&buffer.filled()[before..])),
            Poll::Ready(Err(error)) => self.begins(Err(error)),
            Poll::Pending => {}
        }
        read
    }
}

impl AsyncWrite for AdminStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
