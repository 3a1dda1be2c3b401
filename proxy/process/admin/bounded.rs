//! The admin port's listener: a few open files are kept back for it, and it takes no more than are free beyond them.

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

use crate::protocol::endpoint::Endpoint;
use crate::upstream::{
    descriptors::{Descriptor, Descriptors},
    transport::{Listener, Stream},
};

/// Connections that always find a place: probes, a scrape, somebody who looks what is wrong.
const KEPT_BACK: usize = 8;
/// How long a full file table is left alone before the next connection is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Accepts a connection only where there is an open file for it.
pub struct Bounded {
    listener: Listener,
    kept_back: Arc<Semaphore>,
    descriptors: Arc<Descriptors>,
}

/// A connection to the admin port.
pub struct AdminStream {
    stream: Stream,
    _file: OpenFile,
}

/// Given back when it is dropped.
#[expect(dead_code, reason = "held for its end only")]
enum OpenFile {
    KeptBack(OwnedSemaphorePermit),
    Shared(Descriptor),
}

impl Bounded {
    pub fn new(listener: Listener, descriptors: Arc<Descriptors>) -> Bounded {
        Bounded { listener, kept_back: Arc::new(Semaphore::new(KEPT_BACK)), descriptors }
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
            // Nobody closes it.
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
                    let peer = arrival.peer.clone();
                    if let Ok(stream) = arrival.into_stream() {
                        return (AdminStream { stream, _file: place }, peer);
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

impl AsyncRead for AdminStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
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
