//! What a node has said unasked and nobody has taken yet.

use bytes::{Bytes, BytesMut};

use super::{reply::Scanner, value::Malformed};

/// Whole frames, and the beginning of the next. Holds no memory while it is empty.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: BytesMut,
    scanner: Scanner,
}

impl Inbox {
    /// Adds what has been read.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, Malformed> {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            return Ok(None);
        }
        let end = self.scanner.find(&self.bytes)?;
        Ok(end.map(|end| self.bytes.split_to(end).freeze()))
    }
}
