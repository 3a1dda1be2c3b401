//! Every fixed text that the proxy itself speaks to a client. Where Redis has a text for the case, it is Redis' own.
//!
//! Texts are without the leading `-` and the ending; [`crate::protocol::resp::write::error`] writes them.

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
/// A client from another machine comes to a port that is open to everyone.
pub const PROTECTED: &str = "DENIED Slotway is running in protected mode: this port is open to all networks, and it asks nobody for a \
     password. In this mode it serves its own machine alone. To let others in, give clients a password (client_password_file, or \
     [users]) or have them show a certificate (tls_ca_cert_file); or say allow_insecure_bind = true, or protected_mode = false, \
     where the network is closed.";
/// One client too many.
pub const MAX_CLIENTS: &str = "ERR max number of clients reached";
/// Plain text came to a port of TLS, which Redis would close without a word.
pub const SPEAKS_TLS: &str = "ERR proxy: this port speaks TLS: connect to it with rediss://, or redis-cli --tls";
/// The same to a visitor of the admin port.
pub const ADMIN_SPEAKS_TLS: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
                                    This port speaks TLS: ask it by https://\n";
/// Why a connection of a client's own cannot be had.
pub const TOO_FEW_FILES: &str = "all open files that the proxy is allowed are in use, raise its `ulimit -n`";
/// An option that is none.
pub const SYNTAX: &str = "ERR syntax error";
/// A request that would be too long with the prefixes of a database before its keys.
pub const TOO_LONG_INSIDE: &str = "ERR proxy: the request is too long for a database of its own";
/// An argument that should be an integer.
pub const PROXY_CONFIG: &str = "ERR proxy: say PROXY CONFIG, or PROXY CONFIG GET <pattern>";
/// PROXY SLOWLOG with other arguments than it takes.
pub const PROXY_SLOWLOG: &str = "ERR proxy: say PROXY SLOWLOG GET [<count>], PROXY SLOWLOG LEN or PROXY SLOWLOG RESET";
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
/// What has keys, behind CONFIG SET in a transaction: all nodes are set once the transaction's own has run it.
pub const BEHIND_CONFIG_SET: &str =
    "ERR In a transaction through the proxy, CONFIG SET takes effect last: put it behind all commands with keys";
/// What a server may answer by bytes of the client's own cannot be told from the replies around it.
pub const ECHOED_IN_MULTI: &str = "ERR proxy: within MULTI, no backslash in the first line of a script, and no line break in an option of FUNCTION LIST";
/// No topology yet, or a slot without an owner.
pub const CLUSTERDOWN: &str = "CLUSTERDOWN The cluster is down";
/// CLUSTER at a server that is in none.
pub const NO_CLUSTER: &str = "ERR This instance has cluster support disabled";
/// PROXY READS with another word.
pub const READ_FROM: &str = "ERR proxy: READS takes primary, replica or nearest";
/// What a split of one request could not put together.
pub const ODD_REPLIES: &str = "ERR proxy: the nodes' replies do not fit together";

/// What would change the nodes' users, from a user of the proxy's own.
pub fn changes_users(command: &str, user: &str) -> String {
    format!(
        "ERR proxy: {} is about the nodes' users, and '{user}' is a user of the proxy's own: the proxy's configuration says \
         what it may do",
        spoken(command)
    )
}

/// What would act on others, from a user with a database of its own.
pub fn acts_on_others(command: &str, user: &str) -> String {
    format!(
        "ERR proxy: {} would act on clients of other users than '{user}', which has a database of its own",
        spoken(command)
    )
}

/// A user of the proxy's own has sent too many requests.
pub fn too_many_requests(user: &str, limit: u32) -> String {
    format!("ERR proxy: the user '{user}' may send {limit} requests a second, and has; this one was not carried out")
}

/// A user of the proxy's own has too many clients.
pub fn too_many_clients_of(user: &str) -> String {
    format!("ERR proxy: max number of clients of the user '{user}' reached")
}

/// WAIT where a node may have lost what was written there.
pub fn wait_lost(node: &str, why: &str) -> String {
    format!("ERR proxy: what you wrote to {node} may be lost, so that no replicas can be counted: {why}")
}

/// WAIT where a node does not tell.
pub fn wait_unsure(node: &str, why: &str) -> String {
    format!("ERR proxy: the replicas of {node} cannot be counted: {why}")
}

/// Too much waits for a node to take more of it.
pub fn node_takes_no_more(node: &str) -> String {
    format!("ERR proxy: {node} does not keep up, too much waits for it already")
}

/// EXEC where the node takes nothing, in its words, as Redis has it.
pub fn exec_aborted(why: &str) -> String {
    format!("{EXECABORT_BECAUSE}{why}")
}

/// A request that would overtake what was given up before and may still run.
pub fn in_doubt(node: &str, obstacle: &str) -> String {
    let obstacle = if obstacle.is_empty() { "its reply has not come" } else { obstacle };
    format!(
        "ERR proxy: not sent: what was given up before may still run on {node} ({obstacle}), and must not run after this"
    )
}

/// A node is not asked any more since the cluster has it no more, or elsewhere.
pub fn node_has_left(node: &str) -> String {
    format!("ERR proxy: {node} has just left the cluster or its address, ask again")
}

/// A reply that has to be read whole is too large for that.
pub const NO_ROOM: &str = "its reply is too large (max_buffered), ask for less at a time";

/// The same, of this node's reply.
pub fn reply_too_large(node: &str) -> String {
    format!("ERR proxy: no answer from {node}: {NO_ROOM}")
}

/// A request whose time is over.
pub fn no_answer(node: &str, limit: std::time::Duration) -> String {
    format!("ERR proxy: no answer from {node} within {limit:?}, the command may have run")
}

/// FCALL where a primary has just joined and may lack the function.
pub fn awaits_functions(node: &str) -> String {
    format!("ERR proxy: {node} has just joined the cluster and is being given its functions")
}

/// FUNCTION LOAD and the like where a node is still being given what others have.
pub fn functions_differ(node: &str) -> String {
    format!("ERR proxy: {node} is still being given the functions that it has missed, nothing is done")
}

/// A wrong number of arguments. `name` is in lower case, a subcommand's as `config|get`.
pub fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// A command that is refused, and why.
pub fn refused(name: &str, reason: &str) -> String {
    let command = spoken(name);
    format!(
        "ERR {command} is not served by the proxy: {reason}. To reach one node on purpose: PROXY NODE <host:port> \
         {command} ... (PROXY NODES lists them)"
    )
}

/// A command that is refused in a database of its own, and why.
pub fn refused_inside(name: &str, database: &str, reason: &str) -> String {
    let command = spoken(name);
    format!("ERR proxy: {command} is not served in the database '{database}': {reason}")
}

/// PROXY NODE by slot or key with a command that is refused otherwise: slots move, and another node would be hit.
pub fn only_at_a_node(name: &str, owner: &str) -> String {
    let command = spoken(name);
    format!(
        "ERR {command} is not sent to whoever owns a slot: name the node itself, as in PROXY NODE {owner} {command} ..."
    )
}

/// No node tells whether the client's user may do what the proxy answers itself.
pub fn no_verdict(why: &str) -> String {
    let why = why.strip_prefix("ERR ").unwrap_or(why);
    format!("ERR proxy: no node tells whether your user may do this: {why}")
}

/// No node has told whose name a command's is.
pub fn no_name(why: &str) -> String {
    let why = why.strip_prefix("ERR ").unwrap_or(why);
    format!("ERR proxy: no node tells which command this is, it was not sent: {why}")
}

/// The proxy may not ask whether the client's user may do what would touch other clients.
pub const MAY_NOT_ASK: &str = "NOPERM proxy: it cannot be told whether your user may do this: the proxy's own user needs +acl|getuser and +acl|dryrun at the nodes";

/// A command that the configuration refuses.
pub const REFUSED_BY_CONFIGURATION: &str = "the proxy's configuration refuses it";

/// What is about a whole database, for a user who may not run scripts.
pub const TAKES_SCRIPTS: &str = "NOPERM proxy: in a database of its own this command is a script at the node, which your user may \
     not run; it takes EVAL, EVAL_RO, CLUSTER COUNTKEYSINSLOT and CLUSTER GETKEYSINSLOT, and the database's keys";

/// What may touch any key of a database of its own, while its keys are at two nodes.
pub fn half_moved(database: &str, slot: crate::protocol::slot::Slot) -> String {
    format!(
        "TRYAGAIN proxy: slot {slot} of the database '{database}' is on its way from one node to another; scripts and what is about \
         all keys wait for that. It has not begun, ask again"
    )
}

/// FLUSHDB in all of the cluster, where databases of their own are in it.
pub const HOLDS_OTHERS: &str = "it would empty the databases that SELECT leads to as well, which FLUSHALL is for";

/// A command about its connection, behind PROXY NODE: that connection lives for one command.
pub fn not_for_one_node(name: &str) -> String {
    let command = spoken(name);
    format!(
        "ERR {command} is about its connection, and that of PROXY NODE lives for one command and one reply: connect to \
         the node itself"
    )
}

/// Keys in several slots in a command that cannot be split. Each key comes with its slot, at most [`MOST_KEYS_NAMED`].
pub fn cross_slot(keys: &[(&[u8], crate::protocol::slot::Slot)], more: usize) -> String {
    let named: Vec<String> = keys.iter().map(|(key, slot)| format!("'{}' is in slot {slot}", shown(key))).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "CROSSSLOT Keys in request don't hash to the same slot: {}{more}. Give them one hash tag: keys with the same \
         text in braces, as in {{tag}}a and {{tag}}b, share a slot",
        named.join(", ")
    )
}

/// How many keys an error names.
pub const MOST_KEYS_NAMED: usize = 4;

/// A command's name as clients say it.
fn spoken(name: &str) -> String {
    name.replace('|', " ").to_ascii_uppercase()
}

/// The start of a key, made printable.
fn shown(key: &[u8]) -> String {
    let cut = if key.len() > 48 { &key[..48] } else { key };
    format!("{}{}", cut.escape_ascii(), if cut.len() < key.len() { "..." } else { "" })
}

/// An error that hit some parts of a write only: what the node said, and what was done all the same, and whether it will be
/// done where it was not.
pub fn done_in_part(said: &[u8], command: &str, done: usize, of: usize, follows: bool) -> Vec<u8> {
    let mut text = said.to_vec();
    let rest = if follows { ", where it follows as soon as it can" } else { "" };
    let note = format!(" (proxy: {command} was done in {done} of {of} parts, not where this error came from{rest})");
    text.extend_from_slice(note.as_bytes());
    text
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

/// A command that is about all nodes or about the connection, between MULTI and EXEC.
pub fn not_in_transaction(name: &str) -> String {
    let command = spoken(name);
    format!("ERR {command} cannot be part of a transaction through the proxy: a transaction runs on one node")
}

/// A command in a transaction whose keys are not in the slot of those before.
pub fn cross_slot_in_transaction(first: crate::protocol::slot::Slot, other: crate::protocol::slot::Slot) -> String {
    format!(
        "CROSSSLOT Keys in request don't hash to the same slot: the transaction is in slot {first}, this key in slot \
         {other}. Give the keys of a transaction one hash tag, as in {{tag}}a and {{tag}}b"
    )
}

/// For a split request whose parts' replies are too large to be put together, and that cannot go by another way since
/// what stands behind it has run.
pub const PARTS_TOO_LARGE: &str = "ERR proxy: the replies from several slots are too large to be put together while writes \
                                   are sent behind the request; ask again, or for fewer keys at a time";

/// For PROXY RELOAD where nothing has been taken.
pub fn not_reloaded(why: &str) -> String {
    format!("ERR proxy: the new configuration is not taken, the old one serves on: {why}")
}

/// For a client that is closed since all clients together hold more than they may, and it holds most.
pub const EVICTED: &str = "ERR proxy: max_buffered is used up and this client holds most of it, so that it is closed; \
                           send or ask for less at a time, or raise max_buffered";
