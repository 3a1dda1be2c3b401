//! A connection to a server that is copied from or to: pipelines of requests, their replies as trees.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

use super::Place;
use crate::{
    config::{NodeTls, TlsFile},
    protocol::resp::{Value, reply::Scanner, write},
    upstream::{
        dial::Dialer,
        transport::{
            Stream,
            tls::to_nodes::{ToNodes, Trusted},
        },
    },
};

/// How long a server may send and take nothing. A long script or a fail-over must not end the copy.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How much is read at a time.
const READ: usize = 64 * 1024;

/// A server.
pub(super) struct Server {
    stream: Stream,
    place: String,
    bytes: BytesMut,
    scanner: Scanner,
}

/// Appends a request.
pub(super) fn writes<T: AsRef<[u8]>>(frames: &mut Vec<u8>, words: &[T]) {
    write::request(frames, words);
}

impl Server {
    /// Connects and logs in.
    ///
    /// # Errors
    /// The server cannot be reached, or lets nobody in.
    pub async fn open(place: &Place, ca: Option<&Path>) -> Result<Server, String> {
        let tls = if place.is_secured { Some(trusted(ca)?) } else { None };
        let dialer = Dialer::with(tls, CONNECT);
        let stream = dialer.dial(&place.address, &place.login()).await;
        let stream = stream.map_err(|error| format!("{place}: {error}"))?;
        Ok(Server { stream, place: place.to_string(), bytes: BytesMut::new(), scanner: Scanner::default() })
    }

    /// One request, and its reply. An error that the server says is a [`Value::Error`].
    ///
    /// # Errors
    /// The connection is lost: it is of no more use.
    pub async fn ask<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Result<Value, String> {
        let mut frame = Vec::new();
        writes(&mut frame, words);
        Ok(self.ask_all(&frame, 1).await?.pop().unwrap_or(Value::Null))
    }

    /// So many requests, and their replies.
    ///
    /// # Errors
    /// As [`Server::ask`].
    pub async fn ask_all(&mut self, frames: &[u8], count: usize) -> Result<Vec<Value>, String> {
        let mut left = frames;
        while !left.is_empty() {
            let taken = timeout(PATIENCE, self.stream.write(left)).await;
            match taken.map_err(|_| self.lost("it takes nothing"))? {
                Ok(0) => return Err(self.lost("it closed the connection")),
                Ok(count) => left = &left[count..],
                Err(error) => return Err(self.lost(&error.to_string())),
            }
        }
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.next().await?);
        }
        Ok(values)
    }

    /// How many keys it has.
    ///
    /// # Errors
    /// As [`Server::ask`]; or it does not tell.
    pub async fn count(&mut self) -> Result<u64, String> {
        match self.ask(&["DBSIZE"]).await? {
            Value::Integer(count) => Ok(count.try_into().unwrap_or_default()),
            other => Err(self.odd("DBSIZE", &other)),
        }
    }

    /// What to say of a reply that is none of those that are expected.
    pub fn odd(&self, command: &str, reply: &Value) -> String {
        let text = match reply {
            Value::Error(text) => String::from_utf8_lossy(text).into_owned(),
            _ => "with something else than is expected".to_owned(),
        };
        format!("{} answers {command}: {text}", self.place)
    }

    async fn next(&mut self) -> Result<Value, String> {
        let malformed = "it does not speak the Redis protocol";
        loop {
            if let Some(end) = self.scanner.find(&self.bytes).map_err(|_| self.lost(malformed))? {
                let parsed = Value::parse(&self.bytes[..end]).map_err(|_| self.lost(malformed))?;
                self.bytes.advance(end);
                return parsed.map(|(value, _)| value).ok_or_else(|| self.lost(malformed));
            }
            self.bytes.reserve(READ);
            match timeout(PATIENCE, self.stream.read_buf(&mut self.bytes)).await {
                Ok(Ok(0)) => return Err(self.lost("it closed the connection")),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.lost(&error.to_string())),
                Err(_) => return Err(self.lost("it does not answer")),
            }
        }
    }

    fn lost(&self, why: &str) -> String {
        format!("{} is lost: {why}; start the copy again: what has been copied is passed over", self.place)
    }
}

fn trusted(ca: Option<&Path>) -> Result<ToNodes, String> {
    let ca = ca.map(|path| TlsFile { key: "ca", path: path.to_owned() });
    let settings = NodeTls { ca, pair: None, name: None, is_unchecked: false };
    let trusted = Trusted::load(&settings).map_err(|error| error.to_string())?;
    Ok(ToNodes::new(watch::Sender::new(Arc::new(trusted)).subscribe(), None))
}
