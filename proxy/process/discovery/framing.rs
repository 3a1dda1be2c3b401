//! What a server makes of frames that are not canonical: it is sent some, each on a connection of its own.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tracing::debug;

use crate::{
    cluster::topology::Framing,
    protocol::{address::Address, resp::request::LONGEST_LINE},
    upstream::{
        dial::{self, Dialer, Login},
        transport::Stream,
    },
};

/// A PING that does not end in CR LF.
const WRONG_LINE_END: &[u8] = b"*1\r\n$4\r\nPINGXX";
/// A head with a NUL in it.
const NUL_IN_HEAD: &[u8] = b"*\0\r\n";
/// An inline request with a closing quote in the midst of a word.
const QUOTE_WITHIN: &[u8] = b"PING \"a\"b\r\n";
/// How a server begins that will not have a frame.
const PROTOCOL_ERROR: &[u8] = b"-ERR Protocol error: ";
/// The longest reply that is looked at.
const LONGEST_REPLY: usize = 1024;

/// Asks the server at `address`. One that does not answer is taken for one that passes over what it could refuse.
pub async fn learn(address: &Address, login: &Login, dialer: &Dialer) -> Framing {
    // Behind so much, one that looks for the end of a line no further than a NUL says that there is none.
    let behind_nul = [NUL_IN_HEAD, &vec![b'x'; LONGEST_LINE]].concat();
    let (line_end, nul, quoted) = tokio::join!(
        answer(address, login, dialer, WRONG_LINE_END),
        answer(address, login, dialer, &behind_nul),
        answer(address, login, dialer, QUOTE_WITHIN),
    );
    let refuses_line_end = line_end.strip_prefix(PROTOCOL_ERROR).map(|text| dial::reason(text).into());
    Framing {
        refuses_line_end,
        sees_past_nul: nul.ends_with(b"invalid multibulk length"),
        joins_quoted: quoted == b"$2",
    }
}

/// The first line of what the server answers to `bytes`, without its end; empty where it does not.
async fn answer(address: &Address, login: &Login, dialer: &Dialer, bytes: &[u8]) -> Vec<u8> {
    let Ok(mut stream) = dialer.dial(address, login).await else { return Vec::new() };
    let mut line = Vec::new();
    if !matches!(timeout(dialer.patience(), exchange(&mut stream, bytes, &mut line)).await, Ok(Ok(()))) {
        debug!("{address} does not say what it makes of {}", bytes[..bytes.len().min(16)].escape_ascii());
    }
    let end = line.iter().position(|&byte| byte == b'\r').unwrap_or(0);
    line.truncate(end);
    line
}

async fn exchange(stream: &mut Stream, bytes: &[u8], line: &mut Vec<u8>) -> std::io::Result<()> {
    // It may have answered and closed before it has read all.
    let _ = stream.write_all(bytes).await;
    while !line.contains(&b'\n') && line.len() < LONGEST_REPLY && stream.read_buf(line).await? > 0 {}
    Ok(())
}
