//! Every fixed text that the proxy itself speaks to a client: here those that Redis has for the case, in its own words; the
//! proxy's own are in `own`.
//!
//! Texts are without the leading `-` and the ending; [`crate::protocol::resp::write::error`] writes them.

mod own;

pub use own::*;
/// `QUEUED`, the reply to each command of a transaction.
pub const QUEUED: &str = "QUEUED";
/// A command outside of what is allowed before AUTH.
pub const NOAUTH: &str = "NOAUTH Authentication required.";
/// How nodes know the connections on which the proxy asks on its own account (CLIENT LIST, SLOWLOG GET).
pub const NAME_AT_NODES: &str = "slotway";
/// A wrong user or password.
pub const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
/// HELLO before AUTH.
pub const HELLO_NOAUTH: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time";
/// HELLO with a version other than 2 and 3.
pub const NOPROTO: &str = "NOPROTO unsupported protocol version";
/// HELLO with a version that is no number.
pub const PROTO_NOT_INTEGER: &str = "ERR Protocol version is not an integer or out of range";
/// One client too many.
pub const MAX_CLIENTS: &str = "ERR max number of clients reached";
/// An option that is none.
pub const SYNTAX: &str = "ERR syntax error";
/// A number that is none.
pub const NOT_INTEGER: &str = "ERR value is not an integer or out of range";
/// SELECT of a database that does not exist.
pub const DB_OUT_OF_RANGE: &str = "ERR DB index is out of range";
/// A client name with a space or control character.
pub const CLIENT_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
/// CLIENT UNBLOCK with another reason than TIMEOUT and ERROR.
pub const UNBLOCK_REASON: &str = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
/// CLIENT PAUSE with another mode than WRITE and ALL.
pub const PAUSE_MODE: &str = "ERR CLIENT PAUSE mode must be WRITE or ALL";
/// A timeout in milliseconds that is no integer.
pub const TIMEOUT_NOT_INTEGER: &str = "ERR timeout is not an integer or out of range";
/// A timeout that ends when no clock counts any more.
pub const TIMEOUT_OUT_OF_RANGE: &str = "ERR timeout is out of range";
/// A timeout below zero.
pub const TIMEOUT_NEGATIVE: &str = "ERR timeout is negative";
/// CLIENT IMPORT-SOURCE of Valkey: a node that imports is no node of a cluster.
pub const NOT_IMPORTING: &str = "ERR Server is not in import mode";
/// CLIENT KILL and CLIENT LIST with an id that is none.
pub const CLIENT_ID: &str = "ERR client-id should be greater than 0";
/// The same in CLIENT LIST of Redis.
pub const INVALID_CLIENT_ID: &str = "ERR Invalid client ID";
/// CLIENT KILL addr where nobody has this address.
pub const NO_SUCH_CLIENT: &str = "ERR No such client";
/// CLIENT TRACKING with two REDIRECT.
pub const ONE_REDIRECT: &str = "ERR A client can only redirect to a single other client";
/// CLIENT TRACKING REDIRECT to a client that is not there.
pub const NO_REDIRECT: &str = "ERR The client ID you want redirect to does not exist";
/// CLIENT TRACKING with PREFIX but without BCAST.
pub const PREFIX_WITHOUT_BCAST: &str = "ERR PREFIX option requires BCAST mode to be enabled";
/// CLIENT TRACKING that would change the mode.
pub const SWITCH_BCAST: &str = "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.";
/// CLIENT TRACKING that would change OPTIN to OPTOUT, or back.
pub const SWITCH_OPT: &str = "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.";
/// CLIENT TRACKING with options that exclude each other.
pub const OPT_AND_BCAST: &str = "ERR OPTIN and OPTOUT are not compatible with BCAST";
/// CLIENT TRACKING with OPTIN and OPTOUT.
pub const OPTIN_AND_OPTOUT: &str = "ERR You can't specify both OPTIN mode and OPTOUT mode";
/// CLIENT CACHING without OPTIN or OPTOUT.
pub const CACHING_WITHOUT_TRACKING: &str =
    "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";
/// CLIENT CACHING YES in another mode.
pub const CACHING_YES: &str = "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.";
/// CLIENT CACHING NO in another mode.
pub const CACHING_NO: &str = "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.";
/// The reply to a blocked command that CLIENT UNBLOCK ... ERROR ends.
pub const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
/// How a node begins to say that blocked clients must go since it has become a replica.
pub const FORCED_UNBLOCK: &str = "UNBLOCKED force unblock";
/// MULTI within MULTI.
pub const NESTED_MULTI: &str = "ERR MULTI calls can not be nested";
/// WATCH within MULTI.
pub const WATCH_IN_MULTI: &str = "ERR WATCH inside MULTI is not allowed";
/// EXEC without MULTI.
pub const EXEC_WITHOUT_MULTI: &str = "ERR EXEC without MULTI";
/// DISCARD without MULTI.
pub const DISCARD_WITHOUT_MULTI: &str = "ERR DISCARD without MULTI";
/// EXEC of a transaction in which a command was refused.
pub const EXECABORT: &str = "EXECABORT Transaction discarded because of previous errors.";
/// An EXEC that is malformed: the reason follows.
pub const EXECABORT_BECAUSE: &str = "EXECABORT Transaction discarded because of: ";
/// No topology yet, or a slot without an owner.
pub const CLUSTERDOWN: &str = "CLUSTERDOWN The cluster is down";
/// CLUSTER at a server that is in none.
pub const NO_CLUSTER: &str = "ERR This instance has cluster support disabled";

/// EXEC where the node takes nothing, in its words, as Redis has it.
pub fn exec_aborted(why: &str) -> String {
    format!("{EXECABORT_BECAUSE}{why}")
}

/// A wrong number of arguments. `name` is in lower case, a subcommand's as `config|get`.
pub fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// A command that a subscriber in RESP2 may not send. `name` is in lower case, a subcommand's as `config|get`.
pub fn not_while_subscribed(name: &str) -> String {
    format!(
        "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
         context"
    )
}

/// A command that nobody knows, with the beginnings of its arguments; cut where Redis cuts them.
pub fn unknown_command(request: &crate::protocol::resp::Request) -> Vec<u8> {
    const LONGEST: usize = 128;
    let cut = |text: &[u8], most: usize| {
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        text[..end.min(most)].to_vec()
    };
    let mut shown: Vec<u8> = Vec::new();
    for arg in request.args().skip(1) {
        if shown.len() >= LONGEST {
            break;
        }
        let arg = cut(arg, LONGEST - shown.len());
        shown.push(b'\'');
        shown.extend_from_slice(&arg);
        shown.extend_from_slice(b"' ");
    }
    [b"ERR unknown command '", &*cut(request.name(), LONGEST), b"', with args beginning with: ", &*shown].concat()
}

/// A subcommand that nobody knows.
pub fn unknown_subcommand(request: &crate::protocol::resp::Request) -> Vec<u8> {
    let (sub, name) = (request.arg(1), request.name().to_ascii_uppercase());
    [b"ERR unknown subcommand '", &sub[..sub.len().min(128)], b"'. Try ", &*name, b" HELP."].concat()
}

/// A subcommand with more arguments than it takes, in the words of Redis 7.0.
pub fn odd_subcommand(request: &crate::protocol::resp::Request) -> Vec<u8> {
    let (sub, name) = (request.arg(1), request.name().to_ascii_uppercase());
    let sub = &sub[..sub.len().min(128)];
    [b"ERR unknown subcommand or wrong number of arguments for '", sub, b"'. Try ", &*name, b" HELP."].concat()
}

/// Prefixes of CLIENT TRACKING that would both match some key; `other` as "an existing" or "another provided".
pub fn prefixes_overlap(prefix: &[u8], other: &str, found: &[u8]) -> Vec<u8> {
    let middle = format!("' overlaps with {other} prefix '");
    let end = b"'. Prefixes for a single client must not overlap.";
    [b"ERR Prefix '", prefix, middle.as_bytes(), found, end].concat()
}

/// MONITOR within MULTI, and the like: in Redis' words, or in Valkey's with the command's name.
pub fn not_in_multi(name: Option<&str>) -> String {
    let name = name.map(|name| format!("'{name}' ")).unwrap_or_default();
    format!("ERR Command {name}not allowed inside a transaction")
}

/// Whether a command that is answered with this error has not been carried out at all.
pub fn is_rejection(error: &[u8]) -> bool {
    let starts: [&[u8]; 4] = [b"NOPERM ", b"NOAUTH ", b"ERR wrong number of arguments for ", b"ERR Command "];
    starts.iter().any(|start| error.starts_with(start))
}
