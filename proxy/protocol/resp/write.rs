//! Writing frames into a byte buffer.

use std::io::Write;

use bytes::Bytes;

/// Appends the head of a request with `count` arguments.
pub fn request_head(out: &mut Vec<u8>, count: usize) {
    head(out, b'*', count as i64);
}

/// Appends a whole request.
pub fn request<T: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[T]) {
    request_head(out, args.len());
    for arg in args {
        bulk(out, arg.as_ref());
    }
}

/// Appends a bulk string.
pub fn bulk(out: &mut Vec<u8>, text: &[u8]) {
    head(out, b'$', text.len() as i64);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// Appends a text for people, which RESP3 marks as one.
pub fn text(out: &mut Vec<u8>, text: &str, resp3: bool) {
    if !resp3 {
        return bulk(out, text.as_bytes());
    }
    head(out, b'=', text.len() as i64 + 4);
    out.extend_from_slice(b"txt:");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends `:number`.
pub fn integer(out: &mut Vec<u8>, number: i64) {
    head(out, b':', number);
}

/// Appends `+text`.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an array of `count` elements.
pub fn array(out: &mut Vec<u8>, count: usize) {
    head(out, b'*', count as i64);
}

/// An error as a whole reply: a code word and a text, without the leading `-`.
pub fn error_frame(text: impl AsRef<[u8]>) -> Bytes {
    let text = text.as_ref();
    let mut frame = Vec::with_capacity(text.len() + 3);
    error(&mut frame, text);
    frame.into()
}

/// Appends `-text`; CR and LF in it become spaces, as Redis has it, so that nothing echoed can forge a frame.
pub fn error(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'-');
    out.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// How long the head with this number is.
pub fn head_len(number: usize) -> usize {
    let digits = number.checked_ilog10().map_or(1, |power| power as usize + 1);
    digits + b"$\r\n".len()
}

/// Appends a frame's head: its kind and a number.
#[inline]
pub fn head(out: &mut Vec<u8>, kind: u8, number: i64) {
    let digit = |number: i64| b'0' + number as u8;
    match number {
        // Nearly all are that short.
        0..=9 => out.extend_from_slice(&[kind, digit(number), b'\r', b'\n']),
        10..=99 => out.extend_from_slice(&[kind, digit(number / 10), digit(number % 10), b'\r', b'\n']),
        // Writing to a Vec cannot fail.
        _ => drop(write!(out, "{}{number}\r\n", char::from(kind))),
    }
}
