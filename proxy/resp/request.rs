//! Finding requests in what a client sends, resumably: no byte is scanned twice, nothing is allocated by an announced
//! length. Limits and error texts are those of `processMultibulkBuffer` and `processInlineBuffer` in Redis.

use bytes::Bytes;

use super::write;

/// The longest bulk string (`proto-max-bulk-len`).
pub const LONGEST_BULK: u64 = 512 * 1024 * 1024;
/// The most arguments of one request.
pub const MOST_ARGS: i64 = 1024 * 1024;
/// The longest line: an inline request, or the head of a frame (`PROTO_INLINE_MAX_SIZE`).
pub const LONGEST_LINE: usize = 64 * 1024;
/// Capacity for argument places that a parser keeps between requests.
const KEPT_SPANS: usize = 64;

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

    /// Whether the argument at `index` is `word`, in any case.
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.arg(index).eq_ignore_ascii_case(word.as_bytes())
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
}

/// What is wrong with a client's bytes: the text of the error, after which its connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// The text after `-ERR Protocol error: `.
    pub text: String,
    /// A short word for the metric's `reason` label.
    pub reason: &'static str,
}

impl ProtocolError {
    fn new(text: impl Into<String>, reason: &'static str) -> ProtocolError {
        ProtocolError { text: text.into(), reason }
    }
}

/// Finds one request after the other. Between calls it remembers how far it has come.
#[derive(Default)]
pub struct Parser {
    spans: Vec<Span>,
    /// Arguments still to come; `None` before the head of a frame has been read.
    missing: Option<usize>,
    /// The length of the bulk string that begins at `at`, once its head has been read.
    bulk: Option<usize>,
    /// How far the frame has been scanned.
    at: usize,
    /// An inline request, written anew as a multibulk one.
    inline: Vec<u8>,
    /// Redis allows little to a client that has not authenticated (CVE-2021-32675).
    pub unauthenticated: bool,
}

/// A request was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many bytes of the input it took.
    pub used: usize,
    /// It has no argument (an empty line, `*0`): nothing is to be answered.
    pub blank: bool,
}

impl Parser {
    /// A parser for a client that may still be `unauthenticated`.
    pub fn new(unauthenticated: bool) -> Parser {
        Parser { unauthenticated, ..Parser::default() }
    }

    /// Looks for the end of the request that begins at the front of `bytes`; `None` where more bytes are needed, and
    /// then the next call must pass the same bytes with more behind them.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<Found>, ProtocolError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if self.missing.is_none() {
            self.inline.clear();
            self.spans.clear();
            if first != b'*' {
                return self.find_inline(bytes);
            }
            let Some(line) = self.line(bytes, "too big mbulk count string", "multibulk_len")? else { return Ok(None) };
            let invalid = || ProtocolError::new("invalid multibulk length", "multibulk_len");
            let count = decimal(&line[1..]).filter(|&count| count <= MOST_ARGS).ok_or_else(invalid)?;
            if self.unauthenticated && count > 10 {
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
            if bytes.len() < self.at + length + 2 {
                return Ok(None);
            }
            self.spans.push(Span { start: self.at as u32, end: (self.at + length) as u32 });
            self.at += length + 2;
            self.bulk = None;
            self.missing = Some(missing - 1);
        }
        Ok(Some(self.finish(false)))
    }

    /// The request just found at the front of `bytes`.
    pub fn request<'a>(&'a self, bytes: &'a [u8], found: Found) -> Request<'a> {
        let frame = if self.inline.is_empty() { &bytes[..found.used] } else { &self.inline };
        Request { frame, spans: &self.spans }
    }

    /// How many bytes the frame being read will have at least, as far as its heads have told.
    pub fn expected(&self) -> usize {
        self.at + self.bulk.map_or(0, |length| length + 2)
    }

    /// Gives back memory that a large request needed.
    pub fn shrink(&mut self) {
        if self.missing.is_none() && (self.spans.capacity() > KEPT_SPANS || self.inline.capacity() > 0) {
            *self = Parser { unauthenticated: self.unauthenticated, ..Parser::default() };
        }
    }

    fn finish(&mut self, blank: bool) -> Found {
        let used = self.at;
        self.missing = None;
        self.at = 0;
        Found { used, blank }
    }

    /// The line that begins where the scan stands, without its CR LF; the scan moves behind it.
    fn line<'b>(
        &mut self,
        bytes: &'b [u8],
        too_long: &str,
        reason: &'static str,
    ) -> Result<Option<&'b [u8]>, ProtocolError> {
        let rest = &bytes[self.at..];
        // Heads are a few bytes long: a plain search beats a clever one.
        match rest.iter().position(|&byte| byte == b'\r') {
            Some(end) if end + 1 < rest.len() => {
                self.at += end + 2;
                Ok(Some(&rest[..end]))
            }
            None if rest.len() > LONGEST_LINE => Err(ProtocolError::new(too_long, reason)),
            _ => Ok(None),
        }
    }

    fn bulk_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.line(bytes, "too big bulk count string", "bulk_len")? else { return Ok(None) };
        if line.first() != Some(&b'$') {
            let got = char::from(line.first().copied().unwrap_or(b'\r'));
            return Err(ProtocolError::new(format!("expected '$', got '{got}'"), "bulk_head"));
        }
        let length = decimal(&line[1..]).and_then(|length| u64::try_from(length).ok());
        let Some(length) = length.filter(|&length| length <= LONGEST_BULK) else {
            return Err(ProtocolError::new("invalid bulk length", "bulk_len"));
        };
        if u32::try_from(self.at as u64 + length).is_err() {
            // Redis closes a client whose query is longer than 1 GiB (`client-query-buffer-limit`).
            return Err(ProtocolError::new("too big request", "bulk_len"));
        }
        if self.unauthenticated && length > 16384 {
            return Err(ProtocolError::new("unauthenticated bulk length", "unauthenticated"));
        }
        self.bulk = Some(length as usize);
        Ok(self.bulk)
    }

    fn find_inline(&mut self, bytes: &[u8]) -> Result<Option<Found>, ProtocolError> {
        let Some(end) = bytes[self.at..].iter().position(|&byte| byte == b'\n').map(|end| self.at + end) else {
            if bytes.len() > LONGEST_LINE {
                return Err(ProtocolError::new("too big inline request", "inline"));
            }
            self.at = bytes.len();
            return Ok(None);
        };
        self.at = end + 1;
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        let args =
            split_line(line).ok_or_else(|| ProtocolError::new("unbalanced quotes in request", "inline_quotes"))?;
        if !args.is_empty() {
            write::request(&mut self.inline, &args);
            // What was just written is whole and well formed, so that this finds every argument's place.
            let mut places = Parser::default();
            places.find(&self.inline)?;
            self.spans = places.spans;
        }
        Ok(Some(self.finish(args.is_empty())))
    }
}

/// A decimal number as Redis' `string2ll` takes it: no sign but `-`, no leading zero, no space.
pub fn decimal(text: &[u8]) -> Option<i64> {
    match text {
        [b'0'] => Some(0),
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

/// The words of an inline request, with the quotes and escapes of `sdssplitargs`; `None` where a quote stays open.
pub fn split_line(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // sdssplitargs works on C strings: it ends at a NUL.
        if rest.first().is_none_or(|&byte| byte == 0) {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some((&byte, behind)) = rest.split_first() {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' | 0 => break,
                b'"' => {
                    rest = double_quoted(behind, &mut word)?;
                    break;
                }
                b'\'' => {
                    rest = single_quoted(behind, &mut word)?;
                    break;
                }
                _ => {
                    word.push(byte);
                    rest = behind;
                }
            }
        }
        words.push(word);
    }
}

/// Reads up to the closing quote, which a space or the end of the line must follow.
fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'x', high, low, behind @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default() as u8;
                word.push(digit(high) * 16 + digit(low));
                rest = behind;
            }
            [b'\\', escaped, behind @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = behind;
            }
            [b'"', behind @ ..] => return ends_word(behind),
            [byte, behind @ ..] if *byte != 0 => {
                word.push(*byte);
                rest = behind;
            }
            _ => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'\'', behind @ ..] => {
                word.push(b'\'');
                rest = behind;
            }
            [b'\'', behind @ ..] => return ends_word(behind),
            [byte, behind @ ..] if *byte != 0 => {
                word.push(*byte);
                rest = behind;
            }
            _ => return None,
        }
    }
}

fn ends_word(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| byte.is_ascii_whitespace() || *byte == 0).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut bytes: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut parser = Parser::default();
        let mut requests = Vec::new();
        while let Some(found) = parser.find(bytes)? {
            if !found.blank {
                requests.push(parser.request(bytes, found).args().map(<[u8]>::to_vec).collect());
            }
            bytes = &bytes[found.used..];
        }
        Ok(requests)
    }

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn requests_of_both_forms() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n\r\nset a 'b'\r\n*0\r\n*-1\r\nPING\n";
        assert_eq!(all(bytes), Ok(vec![words("GET foo"), words("set a b"), words("PING")]));
    }

    #[test]
    fn any_cut_gives_the_same() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$4\r\nf\r\no\r\nset \"a\\x41\" 1\r\n*1\r\n$4\r\nPING\r\n";
        let whole = all(bytes).unwrap();
        assert_eq!(whole.len(), 3);
        let mut parser = Parser::default();
        let mut requests = Vec::new();
        let mut start = 0;
        for end in 0..=bytes.len() {
            while let Some(found) = parser.find(&bytes[start..end]).unwrap() {
                let request = parser.request(&bytes[start..end], found);
                requests.push(request.args().map(<[u8]>::to_vec).collect::<Vec<_>>());
                start += found.used;
            }
        }
        assert_eq!(requests, whole);
    }

    #[test]
    fn integers_are_read_as_the_server_reads_them() {
        for number in [0, 7, -12, 123_456_789, -1_234_567_890, i64::MAX, i64::MIN] {
            assert_eq!(decimal(number.to_string().as_bytes()), Some(number));
        }
        for text in [&b"+1"[..], b"01", b" 1", b"1 ", b"1.0", b"", b"-", b"-0", b"12345678901x", b"9223372036854775808"]
        {
            assert_eq!(decimal(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn errors_are_those_of_the_server() {
        for (bytes, text) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*1\r\n+x\r\n", "expected '$', got '+'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (b"*1\r\n$99999999999999999999\r\n", "invalid bulk length"),
            (b"set 'a\r\n", "unbalanced quotes in request"),
            (b"set 'a'b\r\n", "unbalanced quotes in request"),
        ] {
            assert_eq!(all(bytes).unwrap_err().text, text, "{}", bytes.escape_ascii());
        }
        let long = vec![b'a'; LONGEST_LINE + 1];
        assert_eq!(all(&long).unwrap_err().text, "too big inline request");
        let long = [b"*".as_slice(), &long].concat();
        assert_eq!(all(&long).unwrap_err().text, "too big mbulk count string");
    }
}
