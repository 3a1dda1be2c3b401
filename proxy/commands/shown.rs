//! What operators are shown of clients' requests: no secrets, no end of bytes, and keys only where that is wanted.

use sha1::{Digest, Sha1};

use super::table::CommandTable;
use crate::protocol::resp::request::Parser;

/// Arguments of a slow request that are shown, and bytes of each (as SLOWLOG of Redis does it).
const MOST_ARGS: usize = 32;
const LONGEST_ARG: usize = 128;

/// A key as operators may see it: itself, or where that is not wanted, a digest of it.
pub fn shown_key(key: &[u8], shows: bool) -> Vec<u8> {
    if shows {
        return key.to_vec();
    }
    let digest: String = Sha1::digest(key).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("sha1:{digest}").into_bytes()
}

/// The arguments at the front of a frame, cut, without secrets; where keys are not to be shown, the command's name alone.
pub fn shown_args(frame: &[u8], commands: &CommandTable, shows: bool) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    // Only the front of a long frame is there.
    for most in (1..=MOST_ARGS).rev() {
        let mut parser = Parser::default();
        let Some(request) = parser.find_front(frame, most) else { continue };
        let secrets = commands.find(&request).map(|spec| spec.secrets.within(&request)).unwrap_or_default();
        for (at, arg) in request.args().enumerate().take(if shows { most } else { 1 }) {
            let hidden = secrets.iter().any(|secret| secret.contains(&at));
            let cut = &arg[..arg.len().min(LONGEST_ARG)];
            all.push(if hidden { b"(redacted)".to_vec() } else { cut.to_vec() });
        }
        break;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::resp::write;

    #[test]
    fn what_is_shown_of_a_request_has_no_secrets_and_no_end() {
        let commands = CommandTable::builtin();
        let frame = |args: &[&str]| {
            let mut frame = Vec::new();
            write::request(&mut frame, args);
            frame
        };
        let shown = |frame: &[u8], shows| -> Vec<String> {
            let args = shown_args(frame, &commands, shows);
            args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
        };
        assert_eq!(shown(&frame(&["SET", "a", "b"]), true), ["SET", "a", "b"]);
        assert_eq!(shown(&frame(&["SET", "a", "b"]), false), ["SET"]);
        assert_eq!(shown(&frame(&["AUTH", "user", "secret"]), true), ["AUTH", "(redacted)", "(redacted)"]);
        let long = frame(&["SET", "a", &"x".repeat(10_000)]);
        assert_eq!(shown(&long[..512], true), ["SET", "a"], "its front alone is kept");
        assert_eq!(shown_key(b"a", false), b"sha1:86f7e437faa5");
    }
}
