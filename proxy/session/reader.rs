//! What has come from a client and has not been dispatched: bytes, and how far they have been looked at.

use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};

use super::intake::Intake;
use crate::{
    clients::{Clients, Usage},
    protocol::resp::request::{FramingRules, Parser},
};

/// How much memory at most is reserved ahead for a request that has announced its size but not sent it.
const GROWTH: usize = 1024 * 1024;

/// A session's input. It owns bytes only while a request is incomplete or has to wait.
#[derive(Default)]
pub(super) struct Reader {
    /// Boxed, since it moves twice for every read. `None` while it is taken.
    parser: Option<Box<Parser>>,
    /// What the parser's rules follow from: the topology's epoch, and whether the client has authenticated.
    rules_of: Option<(u64, bool)>,
    bytes: BytesMut,
    intake: Intake,
    /// There may be a whole request among the bytes.
    is_ready: bool,
}

impl Reader {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether none wait.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether there may be a whole request among them.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Takes note whether there may be one.
    pub(super) fn set_ready(&mut self, is_ready: bool) {
        self.is_ready = is_ready;
    }

    /// The parser, for a while; [`Reader::put_parser`] brings it back. It holds to `rules`, which are asked for only where
    /// they may have changed: with the topology's `epoch`, and when the client authenticates.
    pub(super) fn take_parser(
        &mut self,
        epoch: u64,
        authenticated: bool,
        rules: impl FnOnce() -> FramingRules,
    ) -> Box<Parser> {
        let mut parser = self.parser.take().unwrap_or_default();
        if self.rules_of != Some((epoch, authenticated)) {
            self.rules_of = Some((epoch, authenticated));
            parser.rules = rules();
        }
        parser
    }

    /// The parser is back.
    pub(super) fn put_parser(&mut self, mut parser: Box<Parser>) {
        parser.shrink();
        self.parser = Some(parser);
    }

    /// The bytes that wait, to be dispatched; [`Reader::put_back`] returns what is left of them.
    pub(super) fn take(&mut self) -> BytesMut {
        std::mem::take(&mut self.bytes)
    }

    /// So much of what was taken has been dispatched. Once all has, others may read on.
    pub(super) fn put_back(&mut self, mut bytes: BytesMut, used: usize) {
        bytes.advance(used);
        if bytes.is_empty() {
            self.intake.end_turn();
        } else {
            self.bytes = bytes;
        }
    }

    /// Keeps what has been looked at, and is not whole or has to wait.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.bytes.extend_from_slice(rest);
    }

    /// Adds what has come to what waits.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let expected = self.parser.as_ref().map_or(0, |parser| parser.expected());
        let more = expected.saturating_sub(self.bytes.len());
        self.bytes.reserve(more.clamp(bytes.len(), GROWTH.max(bytes.len())));
        self.bytes.extend_from_slice(bytes);
        self.is_ready = true;
    }

    /// Drops all of it.
    pub(super) fn clear(&mut self) {
        self.bytes = BytesMut::new();
    }

    /// Whether more may be read, as far as memory is concerned; else the turn for that is awaited.
    pub(super) fn may_read_on(&mut self, clients: &Clients) -> bool {
        self.intake.may_read_on(self.bytes.len(), clients)
    }

    /// Whether the turn is awaited.
    pub(super) fn awaits_turn(&self) -> bool {
        self.intake.is_awaited()
    }

    /// Ready where no turn is awaited, or it is time to look again.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.intake.poll(cx)
    }

    /// Whether it holds anything that counts.
    #[inline]
    pub(super) fn holds_something(&self) -> bool {
        !self.bytes.is_empty() || self.held_by_parser() > 0
    }

    /// Notes what it holds.
    pub(super) fn account(&self, usage: &mut Usage) {
        if !self.bytes.is_empty() {
            usage.input = self.bytes.len();
            usage.input_free = self.bytes.capacity() - usage.input;
            usage.arguments = self.parser.as_ref().map_or(0, |parser| parser.arguments());
        }
        usage.requests += self.held_by_parser();
    }

    fn held_by_parser(&self) -> usize {
        self.parser.as_ref().map_or(0, |parser| parser.held())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_owned_only_while_they_wait() {
        let mut reader = Reader::default();
        reader.keep(b"*1\r\n$4\r\nPI");
        assert!(!reader.is_ready() && reader.len() == 10);
        reader.add(b"NG\r\n*1\r\n");
        assert!(reader.is_ready());
        let bytes = reader.take();
        assert_eq!(&bytes[..], b"*1\r\n$4\r\nPING\r\n*1\r\n");
        reader.put_back(bytes, 14);
        assert_eq!(reader.len(), 4);
        let mut usage = Usage::default();
        reader.account(&mut usage);
        assert_eq!(usage.input, 4);
        let bytes = reader.take();
        reader.put_back(bytes, 4);
        assert!(reader.is_empty());
        let mut usage = Usage::default();
        reader.account(&mut usage);
        assert_eq!((usage.input, usage.input_free), (0, 0));
    }
}
