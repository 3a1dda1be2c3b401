//! A connection on which the proxy asks for itself: replies as trees, each within a deadline.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{DialError, DialStep, Dialer, Login, Version, is_permanent, is_turned_away, reason, within};
use crate::{
    protocol::{
        address::Address,
        resp::{Value, reply::Scanner, write},
        says,
    },
    upstream::transport::Stream,
};

/// Replies as they come, one tree after the other.
#[derive(Default)]
pub(super) struct Replies {
    pub bytes: Vec<u8>,
    scanner: Scanner,
}

impl Replies {
    /// The next reply. After an error or a timeout the stream is out of step and must be dropped.
    pub async fn next(&mut self, stream: &mut Stream, deadline: Instant) -> Result<Value, String> {
        let malformed = |_| "it does not speak the Redis protocol".to_owned();
        loop {
            if let Some(end) = self.scanner.find(&self.bytes).map_err(malformed)? {
                let parsed = Value::parse(&self.bytes[..end]).map_err(malformed)?;
                self.bytes.drain(..end);
                return parsed.map(|(value, _)| value).ok_or_else(|| "its reply is cut short".to_owned());
            }
            self.bytes.reserve(4096);
            if within(deadline, stream.read_buf(&mut self.bytes)).await? == 0 {
                return Err("it closed the connection".to_owned());
            }
        }
    }
}

/// A connection of the control plane: a request, its reply as a tree, each within a deadline.
pub struct Control {
    stream: Stream,
    node: Address,
    replies: Replies,
    patience: Duration,
    /// Whether the node has been told whose connection it is.
    is_named: bool,
}

impl Control {
    /// Connects and logs in, in RESP2 whatever `login` says. The dialer's patience is also that of each [`Control::ask`].
    pub async fn open(target: &Address, login: &Login, dialer: &Dialer) -> Result<Control, DialError> {
        let login = Login { version: Version::Resp2, ..login.clone() };
        let stream = dialer.dial(target, &login).await?;
        Ok(Control {
            stream,
            node: target.clone(),
            replies: Replies::default(),
            patience: dialer.patience(),
            is_named: false,
        })
    }

    /// The address dialled.
    pub fn node(&self) -> &Address {
        &self.node
    }

    /// The address of the other end, as resolved.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer()
    }

    /// When the certificate ends that the other end has shown, if it has.
    pub fn valid_until(&self) -> Option<SystemTime> {
        self.stream.peer_valid_until()
    }

    /// One request, one reply. An error that the node *says* is a [`Value::Error`]. After an `Err` the connection is out
    /// of step: drop it.
    pub async fn ask<T: AsRef<[u8]>>(&mut self, args: &[T]) -> Result<Value, DialError> {
        let mut out = Vec::new();
        write::request(&mut out, args);
        Ok(self.exchange(&out, 1).await?.pop().unwrap_or(Value::Null))
    }

    /// Several requests in one write, and their replies. Words are separated by single spaces.
    pub async fn ask_all(&mut self, requests: &[&str]) -> Result<Vec<Value>, DialError> {
        let mut out = Vec::new();
        for request in requests {
            write::request(&mut out, &request.split(' ').collect::<Vec<_>>());
        }
        self.exchange(&out, requests.len()).await
    }

    /// Waits until the node has closed the connection, or says something unasked: it is of no use then.
    pub async fn is_gone(&mut self) {
        let _ = self.stream.read_buf(&mut self.replies.bytes).await;
    }

    async fn exchange(&mut self, out: &[u8], count: usize) -> Result<Vec<Value>, DialError> {
        let deadline = Instant::now() + self.patience;
        let node = &self.node;
        let failed = |why| DialError { node: node.clone(), step: DialStep::Ask, why, permanent: false };
        let mut frames = Vec::new();
        let named = usize::from(!std::mem::replace(&mut self.is_named, true));
        if named > 0 {
            // Everybody may say it. It is no more than a help: what the node answers does not matter.
            write::request(&mut frames, &["HELLO", "2", "SETNAME", says::NAME_AT_NODES]);
        }
        frames.extend_from_slice(out);
        within(deadline, self.stream.write_all(&frames)).await.map_err(failed)?;
        let mut values = Vec::with_capacity(named + count);
        for _ in 0..named + count {
            let said = self.replies.next(&mut self.stream, deadline).await.map_err(failed)?;
            if let Value::Error(text) = &said
                && is_turned_away(text)
            {
                let (node, why) = (node.clone(), reason(text));
                return Err(DialError { node, step: DialStep::Admission, why, permanent: is_permanent(text) });
            }
            values.push(said);
        }
        values.drain(..named);
        Ok(values)
    }
}
