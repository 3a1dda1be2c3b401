//! Finding where a reply ends, resumably and without a tree: all that a proxy needs to know of most replies.

use super::value::Malformed;

/// The longest line that may be the head of a frame. Texts (a simple string, an error) may be of any length, since
/// scripts make them; up to here they are scanned as a whole.
const LONGEST_HEAD: usize = 64 * 1024;

/// Finds the end of one reply after the other. It needs no stack: what counts is how many frames are still to come.
///
/// ```
/// use slotway::protocol::resp::reply::Scanner;
///
/// let mut scanner = Scanner::default();
/// // A map of RESP3 with one pair, whose value is an array; another reply behind it.
/// let bytes = b"%1\r\n+keys\r\n*2\r\n$1\r\na\r\n_\r\n+OK\r\n";
/// assert_eq!(scanner.find(&bytes[..10]).unwrap(), None);
/// assert!(scanner.is_within_reply());
/// assert_eq!(scanner.find(bytes).unwrap(), Some(bytes.len() - b"+OK\r\n".len()));
/// ```
#[derive(Debug, Default)]
pub struct Scanner {
    /// How far the reply has been scanned; beyond the bytes at hand within a long bulk string.
    at: usize,
    /// Frames still to come before the reply is whole; 0 before its first.
    pending: u64,
    /// The scanner stands within a long text.
    in_text: bool,
}

impl Scanner {
    /// Where the reply at the front of `bytes` ends; `None` where more bytes are needed, and then the next call must
    /// pass the same bytes with more behind them, less what [`Scanner::passed_on`] has taken.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        if self.pending == 0 && self.at == 0 {
            self.pending = 1;
        }
        while self.pending > 0 {
            let Some(rest) = bytes.get(self.at..) else { return Ok(None) };
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                self.pass_text(rest)?;
                return Ok(None);
            };
            let line = rest[..end].strip_suffix(b"\r").ok_or(Malformed)?;
            self.at += end + 1;
            self.pending -= 1;
            if std::mem::take(&mut self.in_text) {
                continue;
            }
            let (&kind, text) = line.split_first().ok_or(Malformed)?;
            match kind {
                b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
                b'$' | b'=' | b'!' => {
                    if let Some(length) = length(text)? {
                        self.at = self.at.checked_add(length).and_then(|at| at.checked_add(2)).ok_or(Malformed)?;
                    }
                }
                b'*' | b'~' | b'>' => self.expect(length(text)?.unwrap_or(0) as u64)?,
                b'%' => self.expect(2 * length(text)?.unwrap_or(0) as u64)?,
                // An attribute annotates the value behind it, which is the reply. There is none without pairs (`|-1`).
                b'|' => self.expect(2 * length(text)?.ok_or(Malformed)? as u64 + 1)?,
                _ => return Err(Malformed),
            }
        }
        if self.at > bytes.len() {
            // The last frame is a bulk string whose end has not come: come back to this check, scanning nothing.
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.at)))
    }

    /// Whether a reply has begun and not ended.
    pub fn is_within_reply(&self) -> bool {
        self.pending > 0 || self.at > 0
    }

    /// The first `count` bytes of an unfinished reply have been passed on and are gone from the input.
    pub fn passed_on(&mut self, count: usize) {
        self.at -= count;
    }

    /// How many of the `held` bytes at hand have been scanned, so that they may be passed on.
    pub fn scanned(&self, held: usize) -> usize {
        self.at.min(held)
    }

    /// How many bytes behind the `held` ones at hand complete the bulk string in which they end; `None` where they end in
    /// none, so that only looking at what follows can tell.
    pub fn missing(&self, held: usize) -> Option<usize> {
        self.at.checked_sub(held).filter(|missing| *missing > 0)
    }

    /// Passes over what has come of a long text, all but the last byte: the CR belongs to the line's end.
    fn pass_text(&mut self, rest: &[u8]) -> Result<(), Malformed> {
        if self.in_text || rest.len() > LONGEST_HEAD {
            self.in_text |= matches!(rest.first(), Some(b'+' | b'-' | b'('));
            if !self.in_text {
                return Err(Malformed);
            }
            self.at += rest.len().saturating_sub(1);
        }
        Ok(())
    }

    fn expect(&mut self, frames: u64) -> Result<(), Malformed> {
        self.pending = self.pending.checked_add(frames).ok_or(Malformed)?;
        Ok(())
    }
}

/// A length below 2^32; `None` for -1, the null of RESP2.
fn length(text: &[u8]) -> Result<Option<usize>, Malformed> {
    if text == b"-1" {
        return Ok(None);
    }
    if text.is_empty() || text.len() > 10 {
        return Err(Malformed);
    }
    let mut number = 0usize;
    for digit in text {
        if !digit.is_ascii_digit() {
            return Err(Malformed);
        }
        number = number * 10 + usize::from(digit - b'0');
    }
    u32::try_from(number).map(|_| Some(number)).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":12\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n*1\r\n$1\r\na\r\n:1\r\n",
        b"%1\r\n+a\r\n~2\r\n#t\r\n,1.5\r\n",
        b"|1\r\n+ttl\r\n:3\r\n$1\r\na\r\n",
        b"_\r\n",
        b"=7\r\ntxt:abc\r\n",
    ];

    #[test]
    fn ends_are_found_however_the_bytes_arrive() {
        let stream = REPLIES.concat();
        let ends: Vec<usize> = REPLIES
            .iter()
            .scan(0, |end, reply| {
                *end += reply.len();
                Some(*end)
            })
            .collect();
        let mut scanner = Scanner::default();
        let (mut start, mut found) = (0, Vec::new());
        for end in 0..=stream.len() {
            while let Some(length) = (start < end).then(|| scanner.find(&stream[start..end]).unwrap()).flatten() {
                start += length;
                found.push(start);
            }
        }
        assert_eq!(found, ends);
    }

    #[test]
    fn a_reply_may_be_passed_on_in_pieces() {
        let reply = b"*2\r\n$10\r\n0123456789\r\n:1\r\n";
        for step in 1..reply.len() {
            let mut scanner = Scanner::default();
            let (mut held, mut passed) = (Vec::new(), Vec::new());
            let mut whole = false;
            for chunk in reply.chunks(step) {
                held.extend_from_slice(chunk);
                match scanner.find(&held).unwrap() {
                    Some(end) => {
                        assert_eq!(end, held.len());
                        passed.append(&mut held);
                        whole = true;
                    }
                    None => {
                        let ready = scanner.scanned(held.len());
                        passed.extend(held.drain(..ready));
                        scanner.passed_on(ready);
                    }
                }
            }
            assert!(whole, "step {step}");
            assert_eq!(passed, reply);
        }
    }

    #[test]
    fn what_completes_a_bulk_string_is_known() {
        let reply = b"*2\r\n$10\r\n0123456789\r\n:1\r\n";
        let missing = |held| {
            let mut scanner = Scanner::default();
            assert_eq!(scanner.find(&reply[..held]).unwrap(), None);
            scanner.missing(held)
        };
        assert_eq!(missing(7), None, "its length is not known yet");
        assert_eq!((missing(9), missing(20), missing(21)), (Some(12), Some(1), None));
        assert_eq!(missing(23), None, "the end of a line");
    }

    #[test]
    fn a_text_may_be_of_any_length() {
        let text = [b"*2\r\n+".as_slice(), &vec![b'x'; 3 * LONGEST_HEAD], b"\r\n:1\r\n"].concat();
        for step in [1000, LONGEST_HEAD, 3 * LONGEST_HEAD + 6, 3 * LONGEST_HEAD + 7] {
            let mut scanner = Scanner::default();
            let (mut held, mut found) = (Vec::new(), None);
            for chunk in text.chunks(step) {
                held.extend_from_slice(chunk);
                found = scanner.find(&held).unwrap();
                if found.is_none() {
                    let ready = scanner.scanned(held.len());
                    scanner.passed_on(ready);
                    held.drain(..ready);
                }
            }
            assert_eq!(found, Some(held.len()), "step {step}");
        }
        assert_eq!(Scanner::default().find(&[b'$'; LONGEST_HEAD + 1]), Err(Malformed));
    }

    #[test]
    fn nonsense_is_malformed() {
        for bytes in [&b"?\r\n"[..], b"\r\n", b"$x\r\n", b"$99999999999\r\n", b"+a\n", b"*-2\r\n", b"|-1\r\n"] {
            assert_eq!(Scanner::default().find(bytes), Err(Malformed), "{}", bytes.escape_ascii());
        }
    }
}
