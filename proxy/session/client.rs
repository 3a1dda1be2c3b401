//! CLIENT: about the clients of the proxy, never about a connection to a node.

mod filter;
mod line;

use std::{collections::HashSet, sync::Arc};

use self::filter::{Filter, ServerFacts};
pub(super) use self::line::line_of;
use super::{
    caller::Caller,
    local::Answer,
    pause,
    replies::ReplyMode,
    tracking::{self, Tracking},
    work::Work,
};
use crate::{
    clients::{Client as Connected, Mark, Order, Unblock, Usage},
    cluster::topology::{ServerInfo, ServerKind},
    commands::table::treatment::ClientCommand,
    protocol::{
        resp::{Request, request::decimal, write},
        says,
    },
};

/// Which server's CLIENT is spoken: that of the nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    valkey: bool,
    version: (u32, u32),
}

impl Dialect {
    pub(super) fn of(server: &ServerInfo) -> Dialect {
        let (major, minor, _) = server.numbers();
        Dialect { valkey: server.kind == ServerKind::Valkey, version: (major, minor) }
    }

    /// Whether it has what came with this version of Redis.
    pub(super) fn since(self, version: (u32, u32)) -> bool {
        self.valkey || self.version >= version
    }

    /// Whether clients that have sent whole requests share one query buffer.
    pub(super) fn shares_its_buffer(self) -> bool {
        self.valkey && self.version >= (8, 0)
    }

    /// Redis 7.0 refuses arguments that nobody asked for; Valkey does not look at them.
    pub(super) fn is_strict(self) -> bool {
        !self.valkey
    }
}

/// The answer to CLIENT, of a client that takes so much memory.
pub(super) fn answer(
    caller: &Caller,
    tracking: &mut Option<Box<Tracking>>,
    usage: &Usage,
    sub: ClientCommand,
    request: &Request<'_>,
) -> Answer {
    match sub {
        ClientCommand::Id => Answer::with(|out| write::integer(out, caller.client.id as i64)),
        ClientCommand::Getname => {
            let name = caller.client.about().name.clone();
            let null = if caller.speaks_resp3() { &b"_\r\n"[..] } else { b"$-1\r\n" };
            Answer::with(|out| if name.is_empty() { out.extend_from_slice(null) } else { write::bulk(out, &name) })
        }
        ClientCommand::Setname => match is_printable(caller, request.arg(2)) {
            true => {
                caller.client.about().name = request.arg(2).to_vec();
                Answer::OK
            }
            false => Answer::refused(says::CLIENT_NAME.as_bytes()),
        },
        ClientCommand::Setinfo => set_info(caller, request),
        ClientCommand::Info => {
            let line = line_of(&caller.client, usage, caller.dialect());
            Answer::with(|out| write::text(out, &line, caller.speaks_resp3()))
        }
        ClientCommand::List => list(caller, usage, request),
        ClientCommand::Kill => kill(caller, request),
        ClientCommand::Reply => reply_mode(request),
        ClientCommand::Unblock => unblock(caller, request),
        // Shown, and nothing more: the proxy evicts nobody but who costs too much, and keys are touched as the
        // nodes decide.
        ClientCommand::NoEvict => switch(caller, Mark::NoEvict, request),
        ClientCommand::NoTouch => switch(caller, Mark::NoTouch, request),
        ClientCommand::ImportSource if request.is(2, "OFF") => Answer::OK,
        ClientCommand::ImportSource => Answer::refused(says::NOT_IMPORTING.as_bytes()),
        ClientCommand::Capa => {
            if (2..request.len()).any(|at| request.is(at, "REDIRECT")) {
                caller.client.mark(Mark::CapaRedirect, true);
            }
            Answer::OK
        }
        ClientCommand::Pause => pause::begin(caller, request),
        ClientCommand::Unpause => {
            caller.router.clients().pause().end(caller.databases.scope());
            Answer::OK
        }
        ClientCommand::Caching => match tracking {
            None => Answer::refused(says::CACHING_WITHOUT_TRACKING),
            Some(tracking) => tracking.set_caching(request).map_or_else(Answer::refused, |()| Answer::OK),
        },
        ClientCommand::Getredir => Answer::with(|out| write::integer(out, tracking::redirect(tracking.as_deref()))),
        ClientCommand::Trackinginfo => Answer::with(|out| tracking::info(tracking.as_deref(), caller, out)),
        // The lane changes: nothing may be in flight.
        ClientCommand::Tracking => Answer::Work(Work::Tracking),
    }
}

fn set_info(caller: &Caller, request: &Request<'_>) -> Answer {
    let (option, value) = (request.arg(2).to_ascii_lowercase(), request.arg(3));
    let shown = String::from_utf8_lossy(request.arg(2)).into_owned();
    if option != b"lib-name" && option != b"lib-ver" {
        return Answer::refused(format!("ERR Unrecognized option '{shown}'").as_bytes());
    }
    if !is_printable(caller, value) {
        let error = format!("ERR {shown} cannot contain spaces, newlines or special characters.");
        return Answer::refused(error.as_bytes());
    }
    {
        let mut about = caller.client.about();
        let field = if option == b"lib-name" { &mut about.library } else { &mut about.library_version };
        *field = value.to_vec();
    }
    Answer::OK
}

/// `CLIENT NO-EVICT ON|OFF` and its like.
fn switch(caller: &Caller, mark: Mark, request: &Request<'_>) -> Answer {
    let (on, off) = (request.is(2, "ON"), request.is(2, "OFF"));
    if !on && !off {
        return Answer::refused(says::SYNTAX.as_bytes());
    }
    caller.client.mark(mark, on);
    Answer::OK
}

/// All clients that the caller may know of: as a user of the proxy's own, those of that user.
fn all(caller: &Caller) -> Vec<Arc<Connected>> {
    let mut all = caller.router.clients().all();
    all.retain(|client| caller.may_know(client));
    all
}

fn known(caller: &Caller, all: &[Arc<Connected>]) -> ServerFacts {
    let mut users: HashSet<String> = all.iter().map(|client| client.about().user.clone()).collect();
    users.insert("default".to_owned());
    let databases = caller.count_databases();
    ServerFacts { dialect: caller.dialect(), databases, users }
}

fn list(caller: &Caller, usage: &Usage, request: &Request<'_>) -> Answer {
    let mut listed = all(caller);
    // Who has been told to leave is gone, as on a server that closes at once.
    listed.retain(|client| client.order() != Order::Leave);
    let known = known(caller, &listed);
    let dialect = known.dialect;
    let filter = if dialect.valkey && request.len() > 3 {
        Filter::parse(request, 2, &known)
    } else if request.is(2, "ID") && request.len() > 3 {
        let ids: Option<Vec<i64>> = (3..request.len()).map(|at| decimal(request.arg(at))).collect();
        let ids = ids.map(|ids| ids.into_iter().filter_map(|id| u64::try_from(id).ok()).collect::<Vec<_>>());
        // In the order asked for, as often as asked for.
        let found = ids.as_ref().map(|ids| ids.iter().filter_map(|id| caller.find_client(*id)).collect());
        listed = found.unwrap_or(listed);
        ids.as_deref().map(Filter::ids).ok_or_else(|| says::INVALID_CLIENT_ID.into())
    } else if request.len() == 2 || request.is(2, "TYPE") && request.len() == 4 {
        Filter::parse(request, 2, &known)
    } else {
        Err(says::SYNTAX.into())
    };
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => return Answer::refused(&error),
    };
    let skip_me = filter.skip_me.unwrap_or(false);
    listed.retain(|client| filter.takes(client) && !(skip_me && client.id == caller.client.id));
    let line = |client: &Arc<Connected>| match client.id == caller.client.id {
        true => line_of(client, usage, dialect),
        false => line_of(client, &client.usage(), dialect),
    };
    let lines: String = listed.iter().map(line).collect();
    Answer::with(|out| write::text(out, &lines, caller.speaks_resp3()))
}

/// `CLIENT KILL addr` and `CLIENT KILL filter value ...`.
fn kill(caller: &Caller, request: &Request<'_>) -> Answer {
    let mut doomed = all(caller);
    if request.len() == 3 {
        let address = String::from_utf8_lossy(request.arg(2)).into_owned();
        doomed.retain(|client| client.peer().to_string() == address);
        if doomed.is_empty() {
            return Answer::refused(says::NO_SUCH_CLIENT.as_bytes());
        }
        doomed.iter().for_each(|client| end(caller, client));
        return Answer::OK;
    }
    let filter = match Filter::parse(request, 2, &known(caller, &doomed)) {
        Ok(filter) => filter,
        Err(error) => return Answer::refused(&error),
    };
    let skip_me = filter.skip_me.unwrap_or(true);
    doomed.retain(|client| filter.takes(client) && !(skip_me && client.id == caller.client.id));
    doomed.iter().for_each(|client| end(caller, client));
    Answer::with(|out| write::integer(out, doomed.len() as i64))
}

/// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`
fn unblock(caller: &Caller, request: &Request<'_>) -> Answer {
    let how = match request.len() {
        4 if request.is(3, "ERROR") => Unblock::Error,
        4 if !request.is(3, "TIMEOUT") => return Answer::refused(says::UNBLOCK_REASON.as_bytes()),
        5.. if caller.dialect().is_strict() => return Answer::refused(says::odd_subcommand(request)),
        // Where there is more, Valkey looks at none of it.
        _ => Unblock::Timeout,
    };
    let Some(id) = decimal(request.arg(2)) else { return Answer::refused(says::NOT_INTEGER.as_bytes()) };
    let client = u64::try_from(id).ok().and_then(|id| caller.find_client(id));
    let waited = client.is_some_and(|client| client.unblock(how));
    Answer::with(|out| write::integer(out, i64::from(waited)))
}

/// Another client is closed at once, this one when it has its reply: its session sees the mark.
fn end(caller: &Caller, client: &Arc<Connected>) {
    if client.id == caller.client.id {
        caller.client.mark(Mark::Closing, true);
    } else {
        client.tell(Order::Leave);
    }
}

fn reply_mode(request: &Request<'_>) -> Answer {
    if request.is(2, "ON") {
        Answer::Replies(ReplyMode::On)
    } else if request.is(2, "OFF") {
        Answer::Replies(ReplyMode::Off)
    } else if request.is(2, "SKIP") {
        Answer::Replies(ReplyMode::Skip)
    } else {
        Answer::refused(says::SYNTAX.as_bytes())
    }
}

/// No space, no control character, nothing beyond ASCII: what Redis allows in a name. Newer servers look at it up to
/// the first NUL only.
fn is_printable(caller: &Caller, name: &[u8]) -> bool {
    let end = name.iter().position(|&byte| byte == 0).filter(|_| caller.dialect().since((7, 2)));
    name[..end.unwrap_or(name.len())].iter().all(|byte| (b'!'..=b'~').contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commands::table::{Treatment, treatment::Local},
        upstream::router::scripted::{Scripted, request, within_a_minute},
    };

    /// What a client is told that says this.
    fn told(caller: &Caller, words: &str) -> String {
        let (words, topology) = (request(words), caller.router.topology().clone());
        let spec = topology.commands.find(&words.as_request()).expect("a command");
        let Treatment::Local(Local::Client(sub)) = spec.treatment else { panic!("{} is none of CLIENT", spec.name) };
        match answer(caller, &mut None, &Usage::default(), sub, &words.as_request()) {
            Answer::Reply(reply) => String::from_utf8(reply.to_vec()).expect("text"),
            Answer::Refused(error) => format!("-{}", String::from_utf8_lossy(&error)),
            Answer::Replies(mode) => format!("{mode:?}"),
            Answer::Work(_) => "work".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_says_of_itself_is_what_others_see() {
        within_a_minute(async {
            let nodes = Scripted::new(1);
            let (caller, other) = (Caller::of(&nodes), Caller::of(&nodes));
            for (words, expected) in [
                ("CLIENT GETNAME", "$-1\r\n"),
                ("CLIENT SETNAME me", "+OK\r\n"),
                ("CLIENT GETNAME", "$2\r\nme\r\n"),
                ("CLIENT SETNAME \u{e9}", "-ERR Client names cannot contain spaces, newlines or special characters."),
                ("CLIENT NO-EVICT maybe", "-ERR syntax error"),
                ("CLIENT REPLY OFF", "Off"),
                ("CLIENT CACHING YES", &format!("-{}", says::CACHING_WITHOUT_TRACKING)),
                ("CLIENT GETREDIR", ":-1\r\n"),
                ("CLIENT TRACKING ON", "work"),
                ("CLIENT UNBLOCK 77", ":0\r\n"),
            ] {
                assert_eq!(told(&caller, words), expected, "{words}");
            }
            let list = told(&other, "CLIENT LIST TYPE normal");
            assert!(list.contains("name=me") && list.matches("id=").count() == 2, "{list}");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_told_to_leave_and_the_client_itself_is_marked() {
        within_a_minute(async {
            let nodes = Scripted::new(1);
            let (caller, other) = (Caller::of(&nodes), Caller::of(&nodes));
            assert_eq!(told(&caller, &format!("CLIENT KILL ID {}", other.client.id)), ":1\r\n");
            assert_eq!(other.client.order(), Order::Leave);
            assert_eq!(told(&caller, &format!("CLIENT KILL ID {} SKIPME no", caller.client.id)), ":1\r\n");
            assert!(caller.client.has(Mark::Closing) && caller.client.order() == Order::Serve);
        })
        .await;
    }
}
