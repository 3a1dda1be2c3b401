//! Requests: what a client's [`Parser`] has found, what has left its buffer, and what is written anew.
//!
//! A request is canonical, since it goes to connections that others share: its frame is byte for byte what
//! [`write::request`] makes of its arguments. What differs and is taken all the same is written anew.

mod inline;
mod parser;

use bytes::Bytes;

pub use self::inline::split_line;
use self::parser::KEPT_SPANS;
pub use self::parser::{Found, FramingRules, LONGEST_BULK, LONGEST_LINE, MOST_ARGS, Parser, ProtocolError};
use super::write;

/// One client command: its frame as it goes to a node, and where its arguments are.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    frame: &'a [u8],
    spans: &'a [Span],
}

/// Where an argument lies in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl<'a> Request<'a> {
    /// The whole frame, a multibulk request.
    pub fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// How many arguments there are, the command's name included: at least one.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Never: a request has at least its name.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// A copy that outlives the buffer.
    pub fn to_owned(&self) -> OwnedRequest {
        OwnedRequest { frame: Bytes::copy_from_slice(self.frame), spans: self.spans.into() }
    }

    /// The argument at `index`, 0 being the command's name; `None` past the last.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let span = self.spans.get(index)?;
        self.frame.get(span.start as usize..span.end as usize)
    }

    /// The argument at `index`, empty past the last.
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// The command's name, as it was written.
    pub fn name(&self) -> &'a [u8] {
        self.arg(0)
    }

    /// All arguments, the name first.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let frame = self.frame;
        self.spans.iter().map(move |span| &frame[span.start as usize..span.end as usize])
    }

    /// Whether it is a line of HTTP, by which some web page makes a browser talk to us: `POST / ...` or `Host: ...`, as Redis
    /// knows it.
    pub fn is_http(&self) -> bool {
        self.is(0, "POST") || self.is(0, "HOST:")
    }

    /// Whether the argument at `index` is `word`, in any case.
    pub fn is(&self, index: usize, word: &str) -> bool {
        let arg = self.arg(index);
        if index == 0 { arg.eq_ignore_ascii_case(word.as_bytes()) } else { is_option(arg, word) }
    }
}

/// Writes requests, again and again into the same memory.
///
/// ```
/// use slotway::protocol::resp::request::RequestWriter;
///
/// let mut writer = RequestWriter::default();
/// writer.begin(2);
/// writer.push(&[b"GET"]);
/// writer.push(&[b"{shop}", b"key"]);
/// assert_eq!(writer.request().frame(), b"*2\r\n$3\r\nGET\r\n$9\r\n{shop}key\r\n");
/// assert_eq!(writer.request().arg(1), b"{shop}key");
/// ```
#[derive(Debug, Default)]
pub struct RequestWriter {
    frame: Vec<u8>,
    spans: Vec<Span>,
}

impl RequestWriter {
    /// The longest frame that can be written.
    pub const LONGEST: usize = u32::MAX as usize;
    /// Memory that is kept between requests: fresh memory would cost a large one more than to be copied.
    const KEPT: usize = 2 * 1024 * 1024;

    /// Begins a request of so many arguments.
    pub fn begin(&mut self, count: usize) {
        self.frame.clear();
        self.spans.clear();
        write::request_head(&mut self.frame, count);
    }

    /// Adds an argument, put together of `parts`.
    #[inline]
    pub fn push(&mut self, parts: &[&[u8]]) {
        write::head(&mut self.frame, b'$', parts.iter().map(|part| part.len()).sum::<usize>() as i64);
        let start = self.frame.len();
        parts.iter().for_each(|part| self.frame.extend_from_slice(part));
        self.spans.push(Span { start: start as u32, end: self.frame.len() as u32 });
        self.frame.extend_from_slice(b"\r\n");
    }

    /// `request` with `prefix` before its argument at `index`. All else is copied as it stands.
    ///
    /// ```
    /// use slotway::protocol::resp::request::{RequestWriter, Parser, Prefix};
    ///
    /// let frame = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1\r\nv\r\n";
    /// let mut parser = Parser::default();
    /// let found = parser.find(frame)?.unwrap();
    /// let mut writer = RequestWriter::default();
    /// writer.put_before(&parser.request(frame, found), 1, &Prefix::new(b"{shop}"));
    /// assert_eq!(writer.request().frame(), b"*3\r\n$3\r\nSET\r\n$9\r\n{shop}key\r\n$1\r\nv\r\n");
    /// assert_eq!((writer.request().arg(1), writer.request().arg(2)), (&b"{shop}key"[..], &b"v"[..]));
    /// # Ok::<(), slotway::protocol::resp::request::ProtocolError>(())
    /// ```
    #[inline]
    pub fn put_before(&mut self, request: &Request, index: usize, prefix: &Prefix) {
        let Request { frame, spans } = *request;
        let start = spans[index].start as usize;
        let length = spans[index].end as usize - start;
        self.frame.clear();
        match prefix.heads.get(length) {
            Some(headed) => {
                // Frames are canonical: this is how long its head is.
                let head = start - head_len(length);
                self.frame.reserve(frame.len() + headed.len());
                self.frame.extend_from_slice(&frame[..head]);
                self.frame.extend_from_slice(headed);
            }
            None => {
                self.frame.extend_from_slice(&frame[..start - write::head_len(length)]);
                write::head(&mut self.frame, b'$', (length + prefix.text.len()) as i64);
                self.frame.extend_from_slice(&prefix.text);
            }
        }
        self.frame.extend_from_slice(&frame[start..]);
        let grown = (self.frame.len() - frame.len()) as u32;
        self.spans.clear();
        self.spans.extend(spans.iter().enumerate().map(|(at, &Span { start, end })| match at >= index {
            false => Span { start, end },
            true => Span { start: start.wrapping_add(grown), end: end.wrapping_add(grown) },
        }));
        self.spans[index].start -= prefix.text.len() as u32;
    }

    /// The request, once all its arguments are there.
    pub fn request(&self) -> Request<'_> {
        Request { frame: &self.frame, spans: &self.spans }
    }

    /// Gives back memory that a large request needed.
    pub fn shrink(&mut self) {
        if self.frame.capacity() > Self::KEPT || self.spans.capacity() > KEPT_SPANS {
            *self = RequestWriter::default();
        }
    }
}

/// What is put before arguments, and the heads of those that come of it: nearly all are short.
#[derive(Debug, PartialEq, Eq)]
pub struct Prefix {
    text: Box<[u8]>,
    /// By the length of the argument, how the new one begins: its head and the prefix.
    heads: Box<[Box<[u8]>]>,
}

impl Prefix {
    /// Arguments below this length have their heads written ahead.
    const SHORT: usize = 100;

    /// The prefix with this text.
    pub fn new(text: &[u8]) -> Prefix {
        let headed = |length: usize| {
            let mut headed = Vec::new();
            write::head(&mut headed, b'$', (length + text.len()) as i64);
            headed.extend_from_slice(text);
            headed.into_boxed_slice()
        };
        Prefix { text: text.into(), heads: (0..Prefix::SHORT).map(headed).collect() }
    }
}

/// How long the head of a short argument is, with at most two digits.
fn head_len(length: usize) -> usize {
    if length < 10 { 4 } else { 5 }
}

/// Whether an argument is an option's `word`, as servers see it: in any case, and no further than to a NUL (`strcasecmp`).
/// Names of commands they compare whole.
pub fn is_option(arg: &[u8], word: &str) -> bool {
    match arg.split_at_checked(word.len()) {
        Some((start, [] | [0, ..])) => start.eq_ignore_ascii_case(word.as_bytes()),
        _ => false,
    }
}

/// A request that has left the buffer it was read into.
#[derive(Clone, Debug)]
pub struct OwnedRequest {
    frame: Bytes,
    spans: Box<[Span]>,
}

impl OwnedRequest {
    /// The request, to look at.
    pub fn as_request(&self) -> Request<'_> {
        Request { frame: &self.frame, spans: &self.spans }
    }

    /// Its bytes.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Bytes of memory that it takes, what the allocator adds included.
    pub fn held(&self) -> usize {
        const ALLOCATED: usize = 32;
        self.frame.len() + size_of_val(&*self.spans) + size_of::<OwnedRequest>() + 2 * ALLOCATED
    }
}

/// A decimal number as Redis' `string2ll` takes it: no sign but `-`, no leading zero, no space.
#[inline]
pub fn decimal(text: &[u8]) -> Option<i64> {
    // Nearly all heads are that short.
    match *text {
        [digit @ b'0'..=b'9'] => Some(i64::from(digit - b'0')),
        [tens @ b'1'..=b'9', ones @ b'0'..=b'9'] => Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => longer_decimal(text),
    }
}

fn longer_decimal(text: &[u8]) -> Option<i64> {
    match text {
        [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..] => {
            if text.len() < 10 {
                let (negative, digits) = match text {
                    [b'-', digits @ ..] => (true, digits),
                    digits => (false, digits),
                };
                let mut number = 0i64;
                for digit in digits {
                    if !digit.is_ascii_digit() {
                        return None;
                    }
                    number = number * 10 + i64::from(digit - b'0');
                }
                return Some(if negative { -number } else { number });
            }
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
