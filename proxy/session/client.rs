//! CLIENT: about the clients of the proxy, never about a connection to a node.

mod filter;
mod line;

use std::{collections::HashSet, sync::Arc};

use self::{
    filter::{Filter, Known},
    line::line_of,
};
use super::{Flow, Session};
use crate::{
    clients::{Client as Connected, Mark, Order, Unblock},
    cluster::topology::{ServerInfo, ServerKind},
    commands::table::{Spec, treatment::Client},
    metrics::Disconnect,
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

impl Session {
    pub(super) fn client_command(&mut self, sub: Client, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        match sub {
            Client::Id => self.answer_with(spec, |out| write::integer(out, self.caller.client.id as i64)),
            Client::Getname => {
                let name = self.caller.client.about().name.clone();
                let null = if self.caller.speaks_resp3() { &b"_\r\n"[..] } else { b"$-1\r\n" };
                self.answer_with(spec, |out| {
                    if name.is_empty() { out.extend_from_slice(null) } else { write::bulk(out, &name) }
                })
            }
            Client::Setname => match self.is_printable(request.arg(2)) {
                true => {
                    self.caller.client.about().name = request.arg(2).to_vec();
                    self.count_names();
                    self.answer(spec, b"+OK\r\n")
                }
                false => self.refuse(spec, says::CLIENT_NAME.as_bytes()),
            },
            Client::Setinfo => self.set_info(request, spec),
            Client::Info => {
                let line = line_of(&self.caller.client, &self.usage_with(request), self.caller.dialect());
                self.answer_with(spec, |out| self.text(out, &line))
            }
            Client::List => self.list(request, spec),
            Client::Kill => self.kill(request, spec),
            Client::Reply => self.reply_mode(request, spec),
            Client::Unblock => self.unblock(request, spec),
            // Shown, and nothing more: the proxy evicts nobody but who costs too much, and keys are touched as the
            // nodes decide.
            Client::NoEvict => self.switch(Mark::NoEvict, request, spec),
            Client::NoTouch => self.switch(Mark::NoTouch, request, spec),
            Client::ImportSource if request.is(2, "OFF") => self.answer(spec, b"+OK\r\n"),
            Client::ImportSource => self.refuse(spec, says::NOT_IMPORTING.as_bytes()),
            Client::Capa => {
                if (2..request.len()).any(|at| request.is(at, "REDIRECT")) {
                    self.caller.client.mark(Mark::CapaRedirect, true);
                }
                self.answer(spec, b"+OK\r\n")
            }
            Client::Pause => self.pause(request, spec),
            Client::Unpause => self.unpause(spec),
            Client::Getredir | Client::Trackinginfo | Client::Tracking | Client::Caching => {
                self.tracking_command(sub, request, spec)
            }
        }
    }

    fn set_info(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let (option, value) = (request.arg(2).to_ascii_lowercase(), request.arg(3));
        let shown = String::from_utf8_lossy(request.arg(2)).into_owned();
        if option != b"lib-name" && option != b"lib-ver" {
            return self.refuse(spec, format!("ERR Unrecognized option '{shown}'").as_bytes());
        }
        if !self.is_printable(value) {
            let error = format!("ERR {shown} cannot contain spaces, newlines or special characters.");
            return self.refuse(spec, error.as_bytes());
        }
        {
            let mut about = self.caller.client.about();
            let field = if option == b"lib-name" { &mut about.library } else { &mut about.library_version };
            *field = value.to_vec();
        }
        self.count_names();
        self.answer(spec, b"+OK\r\n")
    }

    /// `CLIENT NO-EVICT ON|OFF` and its like.
    fn switch(&mut self, mark: Mark, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let (on, off) = (request.is(2, "ON"), request.is(2, "OFF"));
        if !on && !off {
            return self.refuse(spec, says::SYNTAX.as_bytes());
        }
        self.caller.client.mark(mark, on);
        self.answer(spec, b"+OK\r\n")
    }

    fn known(&self, all: &[Arc<Connected>]) -> Known {
        let mut users: HashSet<String> = all.iter().map(|client| client.about().user.clone()).collect();
        users.insert("default".to_owned());
        let databases = self.caller.router.topology().server.databases.max(1);
        Known { dialect: self.caller.dialect(), databases, users }
    }

    fn list(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let mut listed = self.caller.router.clients().all();
        // Who has been told to leave is gone, as on a server that closes at once.
        listed.retain(|client| client.order() != Order::Leave);
        let known = self.known(&listed);
        let dialect = known.dialect;
        let filter = if dialect.valkey && request.len() > 3 {
            Filter::parse(request, 2, &known)
        } else if request.is(2, "ID") && request.len() > 3 {
            let ids: Option<Vec<i64>> = (3..request.len()).map(|at| decimal(request.arg(at))).collect();
            let ids = ids.map(|ids| ids.into_iter().filter_map(|id| u64::try_from(id).ok()).collect::<Vec<_>>());
            // In the order asked for, as often as asked for.
            let found =
                ids.as_ref().map(|ids| ids.iter().filter_map(|id| self.caller.router.clients().find(*id)).collect());
            listed = found.unwrap_or(listed);
            ids.as_deref().map(Filter::ids).ok_or_else(|| says::INVALID_CLIENT_ID.into())
        } else if request.len() == 2 || request.is(2, "TYPE") && request.len() == 4 {
            Filter::parse(request, 2, &known)
        } else {
            Err(says::SYNTAX.into())
        };
        let filter = match filter {
            Ok(filter) => filter,
            Err(error) => return self.refuse(spec, &error),
        };
        let skip_me = filter.skip_me.unwrap_or(false);
        listed.retain(|client| filter.takes(client) && !(skip_me && client.id == self.caller.client.id));
        let line = |client: &Arc<Connected>| match client.id == self.caller.client.id {
            true => line_of(client, &self.usage_with(request), dialect),
            false => line_of(client, &client.usage(), dialect),
        };
        let text: String = listed.iter().map(line).collect();
        self.answer_with(spec, |out| self.text(out, &text))
    }

    /// `CLIENT KILL addr` and `CLIENT KILL filter value ...`.
    fn kill(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let mut doomed = self.caller.router.clients().all();
        if request.len() == 3 {
            let address = String::from_utf8_lossy(request.arg(2)).into_owned();
            doomed.retain(|client| client.peer.to_string() == address);
            if doomed.is_empty() {
                return self.refuse(spec, says::NO_SUCH_CLIENT.as_bytes());
            }
            doomed.iter().for_each(|client| self.end(client));
            return self.answer(spec, b"+OK\r\n");
        }
        let filter = match Filter::parse(request, 2, &self.known(&doomed)) {
            Ok(filter) => filter,
            Err(error) => return self.refuse(spec, &error),
        };
        let skip_me = filter.skip_me.unwrap_or(true);
        doomed.retain(|client| filter.takes(client) && !(skip_me && client.id == self.caller.client.id));
        doomed.iter().for_each(|client| self.end(client));
        self.answer_with(spec, |out| write::integer(out, doomed.len() as i64))
    }

    /// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`
    fn unblock(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let how = match request.len() {
            4 if request.is(3, "ERROR") => Unblock::Error,
            4 if !request.is(3, "TIMEOUT") => return self.refuse(spec, says::UNBLOCK_REASON.as_bytes()),
            5.. if self.caller.dialect().is_strict() => return self.refuse(spec, &says::odd_subcommand(request)),
            // Where there is more, Valkey looks at none of it.
            _ => Unblock::Timeout,
        };
        let Some(id) = decimal(request.arg(2)) else { return self.refuse(spec, says::NOT_INTEGER.as_bytes()) };
        let client = u64::try_from(id).ok().and_then(|id| self.caller.router.clients().find(id));
        let waited = client.is_some_and(|client| client.unblock(how));
        self.answer_with(spec, |out| write::integer(out, i64::from(waited)))
    }

    /// Another client is closed at once, this one when it has its reply.
    fn end(&mut self, client: &Arc<Connected>) {
        if client.id == self.caller.client.id {
            self.caller.client.mark(Mark::Closing, true);
            self.ending = Some(Disconnect::Killed);
        } else {
            client.tell(Order::Leave);
        }
    }

    fn reply_mode(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        if request.is(2, "ON") {
            self.caller.line.mute.off();
            self.answer(spec, b"+OK\r\n")
        } else if request.is(2, "OFF") {
            self.caller.line.mute.all();
            Flow::Taken
        } else if request.is(2, "SKIP") {
            self.caller.line.mute.next();
            Flow::Taken
        } else {
            self.refuse(spec, says::SYNTAX.as_bytes())
        }
    }

    /// No space, no control character, nothing beyond ASCII: what Redis allows in a name. Newer servers look at it up to
    /// the first NUL only.
    fn is_printable(&self, name: &[u8]) -> bool {
        let end = name.iter().position(|&byte| byte == 0).filter(|_| self.caller.dialect().since((7, 2)));
        name[..end.unwrap_or(name.len())].iter().all(|byte| (b'!'..=b'~').contains(byte))
    }

    /// A text that RESP3 marks as one.
    fn text(&self, out: &mut Vec<u8>, text: &str) {
        if self.caller.speaks_resp3() {
            write::head(out, b'=', text.len() as i64 + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        } else {
            write::bulk(out, text.as_bytes());
        }
    }
}
