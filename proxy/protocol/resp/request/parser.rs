//! Finding requests in what a client sends, resumably: no byte is scanned twice, nothing is allocated by an announced
//! length. Limits and error texts are those of `processMultibulkBuffer` and `processInlineBuffer` in Redis.

use std::borrow::Cow;

use super::{Request, Span, decimal, inline::split_line};
use crate::protocol::resp::write;

/// The longest bulk string, unless the servers are told otherwise (`proto-max-bulk-len`).
pub const LONGEST_BULK: u64 = 512 * 1024 * 1024;
/// The most arguments of one request (`INT_MAX`).
pub const MOST_ARGS: i64 = i32::MAX as i64;
/// How long a line may be whose end has not come: an inline request, or the head of a frame (`PROTO_INLINE_MAX_SIZE`). As in
/// Redis, a longer one that comes with its end is taken.
pub const LONGEST_LINE: usize = 64 * 1024;
/// Capacity for argument places that a parser keeps between requests.
pub(super) const KEPT_SPANS: usize = 64;

/// What a client's bytes are held to where servers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingRules {
    /// Redis allows little to a client that has not authenticated (CVE-2021-32675).
    pub unauthenticated: bool,
    /// A line or a bulk string that does not end in CR LF is an error. Otherwise two bytes are passed over, whatever they
    /// are.
    pub checks_line_ends: bool,
    /// A NUL in a frame's head is a byte like others, and so wrong there. Otherwise it hides the rest of what has come, as
    /// it ends a C string: the line's end is waited for.
    pub sees_past_nul: bool,
    /// In an inline request a word goes on behind a closing quote. Otherwise that is an error.
    pub joins_quoted: bool,
    /// The longest bulk string (`proto-max-bulk-len`).
    pub longest_bulk: u64,
}

impl Default for FramingRules {
    fn default() -> FramingRules {
        FramingRules {
            unauthenticated: false,
            checks_line_ends: false,
            sees_past_nul: false,
            joins_quoted: false,
            longest_bulk: LONGEST_BULK,
        }
    }
}

/// What is wrong with a client's bytes: the text of the error, after which its connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// The text after `-ERR Protocol error: `.
    pub text: Cow<'static, [u8]>,
    /// A short word for the metric's `reason` label.
    pub reason: &'static str,
}

impl ProtocolError {
    /// The reason of what [`FramingRules::checks_line_ends`] refuses.
    pub const LINE_END: &'static str = "line_end";

    fn new(text: &'static str, reason: &'static str) -> ProtocolError {
        ProtocolError { text: text.as_bytes().into(), reason }
    }
}

/// Finds one request after the other. Between calls it remembers how far it has come.
///
/// ```
/// use slotway::protocol::resp::request::Parser;
///
/// // Two requests in one read; the second as people type it.
/// let mut parser = Parser::default();
/// let mut rest = &b"*1\r\n$4\r\nPING\r\nget 'a key'\r\n"[..];
/// let mut frames = Vec::new();
/// while let Some(found) = parser.find(rest)? {
///     frames.push(parser.request(rest, found).frame().to_vec());
///     rest = &rest[found.used..];
/// }
/// // What comes out is canonical, whatever came in.
/// assert_eq!(frames, [&b"*1\r\n$4\r\nPING\r\n"[..], b"*2\r\n$3\r\nget\r\n$5\r\na key\r\n"]);
/// // What is wrong is said in the words of Redis.
/// let error = parser.find(b"*1\r\n:4\r\n").unwrap_err();
/// assert_eq!(&*error.text, b"expected '$', got ':'");
/// # Ok::<(), slotway::protocol::resp::request::ProtocolError>(())
/// ```
#[derive(Default)]
pub struct Parser {
    spans: Vec<Span>,
    /// Arguments still to come; `None` before the head of a frame has been read.
    missing: Option<usize>,
    /// The length of the bulk string that begins at `at`, once its head has been read.
    bulk: Option<usize>,
    /// How far the frame has been scanned.
    at: usize,
    /// The frame being read is not canonical.
    crooked: bool,
    /// A request that came in another form, written anew as a canonical frame.
    rewritten: Vec<u8>,
    /// What the bytes are held to.
    pub rules: FramingRules,
}

/// A request was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many bytes of the input it took.
    pub used: usize,
    /// The request has no argument (an empty line, `*0`): nothing is to be answered.
    pub blank: bool,
}

impl Parser {
    /// A parser that holds to `rules`.
    pub fn new(rules: FramingRules) -> Parser {
        Parser { rules, ..Parser::default() }
    }

    /// Looks for the end of the request that begins at the front of `bytes`; `None` where more bytes are needed, and
    /// then the next call must pass the same bytes with more behind them.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<Found>, ProtocolError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if self.missing.is_none() {
            self.rewritten.clear();
            self.spans.clear();
            self.crooked = false;
            if first != b'*' {
                return self.find_inline(bytes);
            }
            let Some(count) = self.head(bytes, &COUNT, MOST_ARGS)? else { return Ok(None) };
            if self.rules.unauthenticated && count > 10 {
                return Err(ProtocolError::new("unauthenticated multibulk length", "unauthenticated"));
            }
            let Ok(count @ 1..) = usize::try_from(count) else { return Ok(Some(self.finish(true))) };
            self.missing = Some(count);
        }
        while let Some(missing @ 1..) = self.missing {
            let length = match self.bulk {
                Some(length) => length,
                None => match self.bulk_head(bytes)? {
                    Some(length) => length,
                    None => return Ok(None),
                },
            };
            let end = self.at + length;
            let Some(line_end) = bytes.get(end..end + 2) else { return Ok(None) };
            if line_end != b"\r\n" {
                self.wrong_line_end()?;
            }
            self.spans.push(Span { start: self.at as u32, end: end as u32 });
            self.at = end + 2;
            self.bulk = None;
            self.missing = Some(missing - 1);
        }
        if self.crooked {
            let args: Vec<&[u8]> =
                self.spans.iter().map(|span| &bytes[span.start as usize..span.end as usize]).collect();
            self.rewrite(&args)?;
        }
        Ok(Some(self.finish(false)))
    }

    /// The request just found at the front of `bytes`.
    pub fn request<'a>(&'a self, bytes: &'a [u8], found: Found) -> Request<'a> {
        let frame = if self.rewritten.is_empty() { &bytes[..found.used] } else { &self.rewritten };
        Request { frame, spans: &self.spans }
    }

    /// The first arguments of the whole frame in `bytes`, at most so many: what stands behind them is not looked at.
    pub fn find_front<'a>(&'a mut self, bytes: &'a [u8], most: usize) -> Option<Request<'a>> {
        *self = Parser::new(self.rules);
        let count = usize::try_from(self.head(bytes, &COUNT, MOST_ARGS).ok()??).ok()?;
        self.missing = Some(count.min(most));
        let found = self.find(bytes).ok()??;
        Some(self.request(bytes, found))
    }

    /// How many bytes the frame being read will have at least, as far as its heads have told.
    pub fn expected(&self) -> usize {
        self.at + self.bulk.map_or(0, |length| length + 2)
    }

    /// Memory that it holds for the request being read, beside the input itself, in bytes.
    pub fn held(&self) -> usize {
        self.spans.capacity().saturating_sub(KEPT_SPANS) * size_of::<Span>() + self.rewritten.capacity()
    }

    /// Bytes of its arguments that are whole; of very many, what they take in the input.
    pub fn arguments(&self) -> usize {
        match self.missing {
            None => 0,
            Some(_) if self.spans.len() > KEPT_SPANS => self.at,
            Some(_) => self.spans.iter().map(|span| (span.end - span.start) as usize).sum(),
        }
    }

    /// Gives back memory that a large request needed.
    pub fn shrink(&mut self) {
        if self.missing.is_none() && (self.spans.capacity() > KEPT_SPANS || self.rewritten.capacity() > 0) {
            *self = Parser { at: self.at, ..Parser::new(self.rules) };
        }
    }

    fn finish(&mut self, blank: bool) -> Found {
        let used = self.at;
        self.missing = None;
        self.at = 0;
        Found { used, blank }
    }

    /// The number in the head that begins where the scan stands; the scan moves behind it.
    #[inline(always)]
    fn head(&mut self, bytes: &[u8], head: &Head, most: i64) -> Result<Option<i64>, ProtocolError> {
        let rest = &bytes[self.at..];
        if let Some((number, length)) = plain_head(rest, head.kind)
            && (head.least..=most).contains(&number)
        {
            self.at += length;
            return Ok(Some(number));
        }
        self.odd_head(rest, head, most)
    }

    /// A head that has not come wholly, or is not as it should be.
    #[cold]
    fn odd_head(&mut self, rest: &[u8], head: &Head, most: i64) -> Result<Option<i64>, ProtocolError> {
        let too_long = || Err(ProtocolError::new(head.too_long, head.reason));
        let end = match rest.iter().position(|&byte| byte == b'\r') {
            Some(end) if end + 1 < rest.len() => end,
            None if rest.len() > LONGEST_LINE => return too_long(),
            _ => return Ok(None),
        };
        let line = &rest[..end];
        if !self.rules.sees_past_nul && line.contains(&0) {
            return if rest.len() > LONGEST_LINE { too_long() } else { Ok(None) };
        }
        let (kind, digits) = line.split_first().unwrap_or((&b'\r', b""));
        if *kind != head.kind {
            let text = [b"expected '", &[head.kind][..], b"', got '", &[*kind], b"'"].concat();
            return Err(ProtocolError { text: text.into(), reason: "bulk_head" });
        }
        if rest[end + 1] != b'\n' {
            self.wrong_line_end()?;
        }
        let number = decimal(digits).filter(|number| (head.least..=most).contains(number));
        let number = number.ok_or_else(|| ProtocolError::new(head.invalid, head.reason))?;
        self.at += end + 2;
        Ok(Some(number))
    }

    /// What stands where CR LF should is passed over, or an error.
    #[cold]
    fn wrong_line_end(&mut self) -> Result<(), ProtocolError> {
        if self.rules.checks_line_ends {
            return Err(ProtocolError::new("invalid CRLF in request", ProtocolError::LINE_END));
        }
        self.crooked = true;
        Ok(())
    }

    fn bulk_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(length) = self.head(bytes, &LENGTH, self.rules.longest_bulk as i64)? else { return Ok(None) };
        if u32::try_from(self.at as i64 + length + 2).is_err() {
            return Err(ProtocolError::new("too big request", "bulk_len"));
        }
        if self.rules.unauthenticated && length > 16384 {
            return Err(ProtocolError::new("unauthenticated bulk length", "unauthenticated"));
        }
        self.bulk = Some(length as usize);
        Ok(self.bulk)
    }

    fn find_inline(&mut self, bytes: &[u8]) -> Result<Option<Found>, ProtocolError> {
        // Servers search for the line's end as in a C string: nothing is found behind a NUL.
        let end = bytes[self.at..].iter().position(|byte| matches!(byte, b'\n' | 0)).map(|end| self.at + end);
        let Some(end) = end.filter(|&end| bytes[end] == b'\n') else {
            if bytes.len() > LONGEST_LINE {
                return Err(ProtocolError::new("too big inline request", "inline"));
            }
            self.at = end.unwrap_or(bytes.len());
            return Ok(None);
        };
        self.at = end + 1;
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        let args = split_line(line, self.rules.joins_quoted)
            .ok_or_else(|| ProtocolError::new("unbalanced quotes in request", "inline_quotes"))?;
        if !args.is_empty() {
            self.rewrite(&args)?;
        }
        Ok(Some(self.finish(args.is_empty())))
    }

    /// Writes the request just found anew, as a canonical frame.
    #[cold]
    fn rewrite<T: AsRef<[u8]>>(&mut self, args: &[T]) -> Result<(), ProtocolError> {
        let mut frame = Vec::new();
        write::request(&mut frame, args);
        // It is whole and well formed, so that this finds every argument's place.
        let mut places = Parser::new(FramingRules { longest_bulk: u32::MAX.into(), ..FramingRules::default() });
        places.find(&frame)?;
        (self.rewritten, self.spans) = (frame, places.spans);
        Ok(())
    }
}

/// The number in the head at the front of `rest`, and how many bytes the head has; `None` where it has not come wholly, or is
/// odd.
#[inline(always)]
fn plain_head(rest: &[u8], kind: u8) -> Option<(i64, usize)> {
    match *rest {
        // Nearly all heads are that short.
        [first, ones @ b'0'..=b'9', b'\r', b'\n', ..] if first == kind => Some((i64::from(ones - b'0'), 4)),
        [first, tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] if first == kind => {
            Some((i64::from(tens - b'0') * 10 + i64::from(ones - b'0'), 5))
        }
        [first, ref behind @ ..] if first == kind => {
            // A few bytes: a plain search beats a clever one.
            let end =
                behind.iter().position(|&byte| byte == b'\r').filter(|end| behind.get(end + 1) == Some(&b'\n'))?;
            Some((decimal(&behind[..end])?, end + 3))
        }
        _ => None,
    }
}

/// One of the two heads in a frame.
struct Head {
    kind: u8,
    least: i64,
    invalid: &'static str,
    too_long: &'static str,
    reason: &'static str,
}

const COUNT: Head = Head {
    kind: b'*',
    least: i64::MIN,
    invalid: "invalid multibulk length",
    too_long: "too big mbulk count string",
    reason: "multibulk_len",
};

const LENGTH: Head = Head {
    kind: b'$',
    least: 0,
    invalid: "invalid bulk length",
    too_long: "too big bulk count string",
    reason: "bulk_len",
};
