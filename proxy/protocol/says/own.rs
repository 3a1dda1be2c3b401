//! What only a proxy has to say. Each text ends with its [`Name`].

use std::{fmt::Display, time::Duration};

use crate::protocol::{names::Name, slot::Slot};

/// Plain text came to a port of TLS, which Redis would close without a word.
pub const SPEAKS_TLS: &str =
    "ERR proxy: this port speaks TLS: connect to it with rediss://, or redis-cli --tls (SLOTWAY-SPEAKS-TLS)";
/// The same to a visitor of the admin port.
pub const ADMIN_SPEAKS_TLS: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
                                    This port speaks TLS: ask it by https:// (SLOTWAY-SPEAKS-TLS)\n";
/// Why a connection of a client's own cannot be had.
pub const TOO_FEW_FILES: &str = "all open files that the proxy is allowed are in use, raise its `ulimit -n`";
/// A client from another machine comes to a port that is open to everyone.
pub const PROTECTED: &str = "DENIED Slotway is running in protected mode: this port is open to all networks, and it asks nobody for a \
     password. In this mode it serves its own machine alone. To let others in, give clients a password (client_password_file, or \
     [users]) or have them show a certificate (tls_ca_cert_file); or say allow_insecure_bind = true, or protected_mode = false, \
     where the network is closed. (SLOTWAY-PROTECTED-MODE)";
/// A request that would be too long with the prefixes of a database before its keys.
pub const TOO_LONG_INSIDE: &str =
    "ERR proxy: the request is too long for a database of its own (SLOTWAY-REQUEST-TOO-LONG)";
/// PROXY CONFIG with other arguments than it takes.
pub const PROXY_CONFIG: &str = "ERR proxy: say PROXY CONFIG, or PROXY CONFIG GET <pattern> (SLOTWAY-USAGE)";
/// PROXY SLOWLOG with other arguments than it takes.
pub const PROXY_SLOWLOG: &str =
    "ERR proxy: say PROXY SLOWLOG GET [<count>], PROXY SLOWLOG LEN or PROXY SLOWLOG RESET (SLOTWAY-USAGE)";
/// PROXY READS with another word.
pub const READ_FROM: &str = "ERR proxy: READS takes primary, replica or nearest (SLOTWAY-USAGE)";
/// What has keys, behind CONFIG SET in a transaction: all nodes are set once the transaction's own has run it.
pub const BEHIND_CONFIG_SET: &str = "ERR In a transaction through the proxy, CONFIG SET takes effect last: put it behind all \
                                     commands with keys (SLOTWAY-IN-TRANSACTION)";
/// What a server may answer by bytes of the client's own cannot be told from the replies around it.
pub const ECHOED_IN_MULTI: &str = "ERR proxy: within MULTI, no backslash in the first line of a script, and no line break in an \
                                   option of FUNCTION LIST (SLOTWAY-IN-TRANSACTION)";
/// What a split of one request could not put together.
pub const ODD_REPLIES: &str = "ERR proxy: the nodes' replies do not fit together (SLOTWAY-ODD-REPLIES)";
/// Nobody has answered, which must not be.
pub const DROPPED: &str = "ERR proxy: the request was dropped unanswered, it may have run; please report this as a bug \
                           (SLOTWAY-DROPPED)";
/// A reply that has to be read whole is too large for that.
pub const NO_ROOM: &str = "its reply is too large (max_buffered), ask for less at a time";
/// How many keys an error names.
pub const MOST_KEYS_NAMED: usize = 4;
/// The proxy may not ask whether the client's user may do what would touch other clients.
pub const MAY_NOT_ASK: &str = "NOPERM proxy: it cannot be told whether your user may do this: the proxy's own user needs \
                               +acl|getuser and +acl|dryrun at the nodes (SLOTWAY-RIGHTS)";
/// A command that the configuration refuses.
pub const REFUSED_BY_CONFIGURATION: &str = "the proxy's configuration refuses it";
/// What is about a whole database, for a user who may not run scripts.
pub const TAKES_SCRIPTS: &str = "NOPERM proxy: in a database of its own this command is a script at the node, which your user may \
     not run; it takes EVAL, EVAL_RO, CLUSTER COUNTKEYSINSLOT and CLUSTER GETKEYSINSLOT, and the database's keys (SLOTWAY-RIGHTS)";
/// FLUSHDB in all of the cluster, where databases of their own are in it.
pub const HOLDS_OTHERS: &str = "it would empty the databases that SELECT leads to as well, which FLUSHALL is for";
/// For a split request whose parts' replies are too large to be put together, and that cannot go by another way since
/// what stands behind it has run.
pub const PARTS_TOO_LARGE: &str = "ERR proxy: the replies from several slots are too large to be put together while writes are \
                                   sent behind the request; ask again, or for fewer keys at a time (SLOTWAY-REPLY-TOO-LARGE)";
/// For a client that is closed since all clients together hold more than they may, and it holds most.
pub const EVICTED: &str = "ERR proxy: max_buffered is used up and this client holds most of it, so that it is closed; send or \
                           ask for less at a time, or raise max_buffered (SLOTWAY-EVICTED)";
/// A cursor of a node's that has no room in the proxy's.
pub const CURSOR_TOO_LARGE: &str = "ERR proxy: the node's cursor is too large for the proxy's (SLOTWAY-SCAN)";
/// SCAN does not know where to go on.
pub const SLOTS_NOT_TOLD: &str =
    "ERR proxy: a node does not say which slots it owns (CLUSTER NODES), ask again (SLOTWAY-SCAN)";
/// MONITOR where no node can be asked.
pub const NO_MONITOR: &str = "CLUSTERDOWN proxy: no node can be monitored now (SLOTWAY-NOT-SERVED)";

/// No node to go to, and why.
pub fn not_served(why: &str) -> String {
    Name::NotServed.on(format!("CLUSTERDOWN proxy: {why}"))
}

/// A connection broke before the request was sent, or while it was only read.
pub fn connection_lost(node: &str, why: impl Display) -> String {
    Name::NotSent.on(format!("ERR proxy: connection to {node} lost ({why})"))
}

/// What ended in this error may have run.
pub fn may_have_run(error: &str) -> String {
    let error = String::from_utf8_lossy(Name::without(error.as_bytes()));
    Name::NodeLost.on(format!("{error}, the command may have run"))
}

/// A transaction whose connection broke.
pub fn transaction_lost(node: &str, why: impl Display) -> String {
    Name::NodeLost.on(format!("ERR proxy: connection to {node} lost ({why}), the transaction may have run"))
}

/// A command for one node whose reply did not come.
pub fn no_reply(node: &str, why: impl Display) -> String {
    Name::NodeLost.on(format!("ERR proxy: no reply from {node} ({why}), the command may have run"))
}

/// What the proxy asks a node on a client's behalf did not go through. It only reads.
pub fn could_not_ask(node: &str, why: impl Display) -> String {
    Name::NodeUnreachable.on(format!("ERR proxy: {node}: {why}"))
}

/// A node cannot be had: `why` names it and says what was being done. `refuses` where it does not let the proxy in.
pub fn cannot_connect(why: impl Display, refuses: bool) -> String {
    let why = why.to_string();
    let name = match refuses {
        _ if why.contains(TOO_FEW_FILES) => Name::OpenFiles,
        true => Name::NodeRefuses,
        false => Name::NodeUnreachable,
    };
    name.on(format!("ERR proxy: {why}"))
}

/// What was asked of a node is another's now.
pub fn given_away(node: &str) -> String {
    Name::NodeLeft.on(format!("ERR proxy: {node} has just given this away, ask again"))
}

/// A reply ended before its end.
pub fn broken_off(node: &str) -> String {
    Name::NodeLost.on(format!("ERR proxy: the reply of {node} broke off"))
}

/// A node still says that another serves it, as `says`.
pub fn too_many_redirects(slot: Slot, node: &str, says: impl Display) -> String {
    Name::Redirects.on(format!("ERR proxy: too many redirects for slot {slot}: {node} still says {says}"))
}

/// PROXY NODE with a name that leads to no node, or to several.
pub fn which_node(why: impl Display) -> String {
    Name::WhichNode.on(format!("ERR {why}"))
}

/// The reply of a command that has run is too large.
pub fn reply_too_large_but_ran(node: &str) -> String {
    let error = reply_too_large(node);
    let error = String::from_utf8_lossy(Name::without(error.as_bytes())).into_owned();
    Name::ReplyTooLarge.on(error + ", the command has run")
}

/// What would change the nodes' users, from a user of the proxy's own.
pub fn changes_users(command: &str, user: &str) -> String {
    Name::OtherUsers.on(format!(
        "ERR proxy: {} is about the nodes' users, and '{user}' is a user of the proxy's own: the proxy's configuration says \
         what it may do",
        spoken(command)
    ))
}

/// A script, from a user of the proxy's own whose rules the nodes do not know.
pub fn runs_without_rules(command: &str, user: &str) -> String {
    Name::Rights.on(format!(
        "NOPERM proxy: what {} runs is not held to the rules of '{user}': it takes a user with ~* &* and every command that \
         scripts may call, such as by +@all",
        spoken(command)
    ))
}

/// What would act on others, from a user with a database of its own.
pub fn acts_on_others(command: &str, user: &str) -> String {
    Name::OtherUsers.on(format!(
        "ERR proxy: {} would act on clients of other users than '{user}', which has a database of its own",
        spoken(command)
    ))
}

/// A user of the proxy's own has sent too many requests.
pub fn too_many_requests(user: &str, limit: u32) -> String {
    Name::RateLimit.on(format!(
        "ERR proxy: the user '{user}' may send {limit} requests a second, and has; this one was not carried out"
    ))
}

/// A user of the proxy's own has too many clients.
pub fn too_many_clients_of(user: &str) -> String {
    Name::UserClients.on(format!("ERR proxy: max number of clients of the user '{user}' reached"))
}

/// WAIT where a node may have lost what was written there.
pub fn wait_lost(node: &str, why: &str) -> String {
    Name::Wait.on(format!("ERR proxy: what you wrote to {node} may be lost, so that no replicas can be counted: {why}"))
}

/// WAIT where a node does not tell.
pub fn wait_unsure(node: &str, why: &str) -> String {
    Name::Wait.on(format!("ERR proxy: the replicas of {node} cannot be counted: {why}"))
}

/// Too much waits for a node to take more of it.
pub fn node_takes_no_more(node: &str) -> String {
    Name::NodeBehind.on(format!("ERR proxy: {node} does not keep up, too much waits for it already"))
}

/// A request that would overtake what was given up before and may still run.
pub fn in_doubt(node: &str, obstacle: &str) -> String {
    let obstacle = if obstacle.is_empty() { "its reply has not come" } else { obstacle };
    Name::InDoubt.on(format!(
        "ERR proxy: not sent: what was given up before may still run on {node} ({obstacle}), and must not run after this"
    ))
}

/// A node is not asked any more since the cluster has it no more, or elsewhere.
pub fn node_has_left(node: &str) -> String {
    Name::NodeLeft.on(format!("ERR proxy: {node} has just left the cluster or its address, ask again"))
}

/// A reply that cannot be held, of this node.
pub fn reply_too_large(node: &str) -> String {
    Name::ReplyTooLarge.on(format!("ERR proxy: no answer from {node}: {NO_ROOM}"))
}

/// A request whose time is over.
pub fn no_answer(node: &str, limit: Duration) -> String {
    Name::NoAnswer.on(format!("ERR proxy: no answer from {node} within {limit:?}, the command may have run"))
}

/// FCALL where a primary has just joined and may lack the function.
pub fn awaits_functions(node: &str) -> String {
    Name::Functions.on(format!("ERR proxy: {node} has just joined the cluster and is being given its functions"))
}

/// FUNCTION LOAD and the like where a node is still being given what others have.
pub fn functions_differ(node: &str) -> String {
    Name::Functions
        .on(format!("ERR proxy: {node} is still being given the functions that it has missed, nothing is done"))
}

/// A command that is refused, and why.
pub fn refused(name: &str, reason: &str) -> String {
    let command = spoken(name);
    Name::Refused.on(format!(
        "ERR {command} is not served by the proxy: {reason}. To reach one node on purpose: PROXY NODE <host:port> \
         {command} ... (PROXY NODES lists them)"
    ))
}

/// A command that is refused in a database of its own, and why.
pub fn refused_inside(name: &str, database: &str, reason: &str) -> String {
    let command = spoken(name);
    Name::RefusedInDatabase.on(format!("ERR proxy: {command} is not served in the database '{database}': {reason}"))
}

/// PROXY NODE by slot or key with a command that is refused otherwise: slots move, and another node would be hit.
pub fn only_at_a_node(name: &str, owner: &str) -> String {
    let command = spoken(name);
    Name::Refused.on(format!(
        "ERR {command} is not sent to whoever owns a slot: name the node itself, as in PROXY NODE {owner} {command} ..."
    ))
}

/// A command about its connection, behind PROXY NODE: that connection lives for one command.
pub fn not_for_one_node(name: &str) -> String {
    let command = spoken(name);
    Name::Refused.on(format!(
        "ERR {command} is about its connection, and that of PROXY NODE lives for one command and one reply: connect to \
         the node itself"
    ))
}

/// No node tells whether the client's user may do what the proxy answers itself.
pub fn no_verdict(why: &str) -> String {
    let why = why.strip_prefix("ERR ").unwrap_or(why);
    Name::Rights.on(format!("ERR proxy: no node tells whether your user may do this: {why}"))
}

/// No node has told whose name a command's is.
pub fn no_name(why: &str) -> String {
    let why = why.strip_prefix("ERR ").unwrap_or(why);
    Name::UnknownName.on(format!("ERR proxy: no node tells which command this is, it was not sent: {why}"))
}

/// What may touch any key of a database of its own, while its keys are at two nodes.
pub fn half_moved(database: &str, slot: Slot) -> String {
    Name::HalfMoved.on(format!(
        "TRYAGAIN proxy: slot {slot} of the database '{database}' is on its way from one node to another; scripts and what is \
         about all keys wait for that. It has not begun, ask again"
    ))
}

/// Keys in several slots in a command that cannot be split. Each key comes with its slot, at most [`MOST_KEYS_NAMED`].
pub fn cross_slot(keys: &[(&[u8], Slot)], more: usize) -> String {
    let named: Vec<String> = keys.iter().map(|(key, slot)| format!("'{}' is in slot {slot}", shown(key))).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Name::CrossSlot.on(format!(
        "CROSSSLOT Keys in request don't hash to the same slot: {}{more}. Give them one hash tag: keys with the same \
         text in braces, as in {{tag}}a and {{tag}}b, share a slot",
        named.join(", ")
    ))
}

/// A command in a transaction whose keys are not in the slot of those before.
pub fn cross_slot_in_transaction(first: Slot, other: Slot) -> String {
    Name::CrossSlot.on(format!(
        "CROSSSLOT Keys in request don't hash to the same slot: the transaction is in slot {first}, this key in slot \
         {other}. Give the keys of a transaction one hash tag, as in {{tag}}a and {{tag}}b"
    ))
}

/// A command that is about all nodes or about the connection, between MULTI and EXEC.
pub fn not_in_transaction(name: &str) -> String {
    let command = spoken(name);
    Name::InTransaction
        .on(format!("ERR {command} cannot be part of a transaction through the proxy: a transaction runs on one node"))
}

/// An error that hit some parts of a write only: what the node said, and what was done all the same, and whether it will be
/// done where it was not.
pub fn done_in_part(said: &[u8], command: &str, done: usize, of: usize, follows: bool) -> Vec<u8> {
    let mut text = Name::without(said).to_vec();
    let rest = if follows { ", where it follows as soon as it can" } else { "" };
    let note = format!(
        " (proxy: {command} was done in {done} of {of} parts, not where this error came from{rest}) ({})",
        Name::DoneInPart
    );
    text.extend_from_slice(note.as_bytes());
    text
}

/// For PROXY RELOAD where nothing has been taken.
pub fn not_reloaded(why: &str) -> String {
    Name::NotReloaded.on(format!("ERR proxy: the new configuration is not taken, the old one serves on: {why}"))
}

/// A command's name as clients say it.
fn spoken(name: &str) -> String {
    name.replace('|', " ").to_ascii_uppercase()
}

/// The start of a key, made printable.
fn shown(key: &[u8]) -> String {
    let cut = if key.len() > 48 { &key[..48] } else { key };
    format!("{}{}", cut.escape_ascii(), if cut.len() < key.len() { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_texts_bear_names_that_exist() {
        for text in [
            SPEAKS_TLS,
            TOO_LONG_INSIDE,
            PROXY_CONFIG,
            PROXY_SLOWLOG,
            READ_FROM,
            BEHIND_CONFIG_SET,
            ECHOED_IN_MULTI,
            ODD_REPLIES,
            DROPPED,
            MAY_NOT_ASK,
            TAKES_SCRIPTS,
            PARTS_TOO_LARGE,
            EVICTED,
            PROTECTED,
            CURSOR_TOO_LARGE,
            SLOTS_NOT_TOLD,
            NO_MONITOR,
        ] {
            assert!(Name::of(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn what_an_error_tells_of_does_not_hide_what_became_of_the_request() {
        let lost = connection_lost("a:1", "reset");
        assert_eq!(lost, "ERR proxy: connection to a:1 lost (reset) (SLOTWAY-NOT-SENT)");
        assert_eq!(
            may_have_run(&lost),
            "ERR proxy: connection to a:1 lost (reset), the command may have run (SLOTWAY-NODE-LOST)"
        );
        let part = done_in_part(lost.as_bytes(), "MSET", 1, 2, false);
        assert_eq!(
            String::from_utf8_lossy(&part),
            "ERR proxy: connection to a:1 lost (reset) (proxy: MSET was done in 1 of 2 parts, not where this error came from) \
             (SLOTWAY-DONE-IN-PART)"
        );
    }
}
