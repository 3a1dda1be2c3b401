//! CLIENT: about the clients of the proxy, never about a connection to a node.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{Flow, Session};
use crate::{
    clients::{Client as Connected, Order, Unblock},
    command::{Spec, treatment::Client},
    resp::{Request, write},
    says,
};

impl Session {
    pub(super) fn client_command(&mut self, sub: Client, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        match sub {
            Client::Id => self.answer_with(spec, |out| write::integer(out, self.client.id as i64)),
            Client::Getname => {
                let name = self.client.about().name.clone();
                let null = if self.speaks_resp3() { &b"_\r\n"[..] } else { b"$-1\r\n" };
                self.answer_with(spec, |out| {
                    if name.is_empty() { out.extend_from_slice(null) } else { write::bulk(out, &name) }
                })
            }
            Client::Setname => match printable(request.arg(2)) {
                true => {
                    self.client.about().name = request.arg(2).to_vec();
                    self.answer(spec, b"+OK\r\n")
                }
                false => self.refuse(spec, says::CLIENT_NAME.as_bytes()),
            },
            Client::Setinfo => self.set_info(request, spec),
            Client::Info => {
                let line = line_of(&self.client);
                self.answer_with(spec, |out| self.text(out, &line))
            }
            Client::List => self.list(request, spec),
            Client::Kill => self.kill(request, spec),
            Client::Reply => self.reply_mode(request, spec),
            Client::Unblock => self.unblock(request, spec),
            // The proxy evicts nobody but who costs too much, and keys are touched as the nodes decide.
            Client::NoEvict | Client::NoTouch | Client::ImportSource => {
                match request.is(2, "ON") || request.is(2, "OFF") {
                    true => self.answer(spec, b"+OK\r\n"),
                    false => self.refuse(spec, says::SYNTAX.as_bytes()),
                }
            }
            Client::Capa => self.answer(spec, b"+OK\r\n"),
            Client::Getredir => self.answer(spec, b":-1\r\n"),
            Client::Trackinginfo | Client::Tracking | Client::Caching | Client::Pause | Client::Unpause => {
                let name = spec.map_or("client", |spec| &spec.name).replace('|', " ");
                self.refuse(spec, format!("ERR proxy: {name} is not served yet").as_bytes())
            }
        }
    }

    fn set_info(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let (option, value) = (request.arg(2).to_ascii_lowercase(), request.arg(3));
        let shown = String::from_utf8_lossy(request.arg(2)).into_owned();
        if option != b"lib-name" && option != b"lib-ver" {
            return self.refuse(spec, format!("ERR Unrecognized option '{shown}'").as_bytes());
        }
        if !printable(value) {
            let error = format!("ERR {shown} cannot contain spaces, newlines or special characters.");
            return self.refuse(spec, error.as_bytes());
        }
        {
            let mut about = self.client.about();
            let field = if option == b"lib-name" { &mut about.library } else { &mut about.library_version };
            *field = value.to_vec();
        }
        self.answer(spec, b"+OK\r\n")
    }

    fn list(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let mut listed = self.router.clients().all();
        if request.is(2, "TYPE") && request.len() == 4 {
            let kind = String::from_utf8_lossy(request.arg(3)).into_owned();
            match kind.to_ascii_lowercase().as_str() {
                "normal" => listed.retain(|client| !subscribes(client)),
                "pubsub" => listed.retain(subscribes),
                "master" | "primary" | "replica" | "slave" => listed.clear(),
                _ => return self.refuse(spec, format!("ERR Unknown client type '{kind}'").as_bytes()),
            }
        } else if request.is(2, "ID") && request.len() > 3 {
            let ids: Option<Vec<u64>> = (3..request.len()).map(|at| number(request.arg(at))).collect();
            let Some(ids) = ids else { return self.refuse(spec, b"ERR Invalid client ID") };
            listed.retain(|client| ids.contains(&client.id));
        } else if request.len() > 2 {
            return self.refuse(spec, says::SYNTAX.as_bytes());
        }
        let text: String = listed.iter().map(|client| line_of(client)).collect();
        self.answer_with(spec, |out| self.text(out, &text))
    }

    /// `CLIENT KILL addr` and `CLIENT KILL filter value ...`.
    fn kill(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        if request.len() == 3 {
            let address = String::from_utf8_lossy(request.arg(2)).into_owned();
            return match self.router.clients().all().iter().find(|client| client.peer.to_string() == address) {
                Some(client) => {
                    self.end(client);
                    self.answer(spec, b"+OK\r\n")
                }
                None => self.refuse(spec, b"ERR No such client"),
            };
        }
        let mut doomed = self.router.clients().all();
        let mut skip_me = true;
        for at in (2..request.len()).step_by(2) {
            let Some(value) = request.get(at + 1) else { return self.refuse(spec, says::SYNTAX.as_bytes()) };
            let text = String::from_utf8_lossy(value).into_owned();
            if request.is(at, "ID") {
                let Some(id) = number(value) else {
                    return self.refuse(spec, b"ERR client-id should be greater than 0");
                };
                doomed.retain(|client| client.id == id);
            } else if request.is(at, "ADDR") {
                doomed.retain(|client| client.peer.to_string() == text);
            } else if request.is(at, "LADDR") {
                doomed.retain(|client| client.local.to_string() == text);
            } else if request.is(at, "USER") {
                doomed.retain(|client| client.about().user == text);
            } else if request.is(at, "TYPE") {
                match text.to_ascii_lowercase().as_str() {
                    "normal" => doomed.retain(|client| !subscribes(client)),
                    "pubsub" => doomed.retain(subscribes),
                    "master" | "primary" | "replica" | "slave" => doomed.clear(),
                    _ => return self.refuse(spec, format!("ERR Unknown client type '{text}'").as_bytes()),
                }
            } else if request.is(at, "SKIPME") && (request.is(at + 1, "YES") || request.is(at + 1, "NO")) {
                skip_me = request.is(at + 1, "YES");
            } else if request.is(at, "MAXAGE") && number(value).is_some() {
                let age = number(value).unwrap_or_default();
                doomed.retain(|client| client.since.elapsed().as_secs() >= age);
            } else {
                return self.refuse(spec, says::SYNTAX.as_bytes());
            }
        }
        doomed.retain(|client| !skip_me || client.id != self.client.id);
        doomed.iter().for_each(|client| self.end(client));
        self.answer_with(spec, |out| write::integer(out, doomed.len() as i64))
    }

    /// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`
    fn unblock(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let how = match request.len() {
            3 => Unblock::Timeout,
            4 if request.is(3, "TIMEOUT") => Unblock::Timeout,
            4 if request.is(3, "ERROR") => Unblock::Error,
            _ => return self.refuse(spec, says::UNBLOCK_REASON.as_bytes()),
        };
        let id = std::str::from_utf8(request.arg(2)).ok().and_then(|id| id.parse::<i64>().ok());
        let Some(id) = id else { return self.refuse(spec, says::NOT_INTEGER.as_bytes()) };
        let client = u64::try_from(id).ok().and_then(|id| self.router.clients().find(id));
        let waited = client.is_some_and(|client| client.unblock(how));
        self.answer_with(spec, |out| write::integer(out, i64::from(waited)))
    }

    /// Another client is closed at once, this one when it has its reply.
    fn end(&mut self, client: &Arc<Connected>) {
        if client.id == self.client.id {
            self.ending = Some(crate::metrics::Disconnect::Killed);
        } else {
            client.tell(Order::Leave);
        }
    }

    fn reply_mode(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        if request.is(2, "ON") {
            self.line.mute(crate::ticket::Mute::No);
            self.answer(spec, b"+OK\r\n")
        } else if request.is(2, "OFF") {
            self.line.mute(crate::ticket::Mute::All);
            Flow::Taken
        } else if request.is(2, "SKIP") {
            self.line.mute(crate::ticket::Mute::Next);
            Flow::Taken
        } else {
            self.refuse(spec, says::SYNTAX.as_bytes())
        }
    }

    /// A text that RESP3 marks as one.
    fn text(&self, out: &mut Vec<u8>, text: &str) {
        if self.speaks_resp3() {
            write::head(out, b'=', text.len() as i64 + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        } else {
            write::bulk(out, text.as_bytes());
        }
    }
}

fn subscribes(client: &Arc<Connected>) -> bool {
    client.subscriptions.iter().any(|count| count.load(Relaxed) > 0)
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|&number| number > 0)
}

/// No space, no control character, nothing beyond ASCII: what Redis allows in a name.
fn printable(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// A client's line in CLIENT LIST, with the fields of Redis 7. Those about the server's own memory are 0.
fn line_of(client: &Connected) -> String {
    let about = client.about().clone();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let age = client.since.elapsed();
    let idle = age.as_millis().saturating_sub(u128::from(client.heard.load(Relaxed))) / 1000;
    let [sub, psub, ssub] = [0, 1, 2].map(|kind| client.subscriptions[kind].load(Relaxed));
    let multi = match client.queued.load(Relaxed) {
        usize::MAX => -1,
        queued => queued as i64,
    };
    let mut flags = String::new();
    for (flag, set) in [('P', sub + psub + ssub > 0), ('x', multi >= 0), ('b', client.waits())] {
        flags.extend(set.then_some(flag));
    }
    if flags.is_empty() {
        flags.push('N');
    }
    format!(
        "id={} addr={} laddr={} fd=0 name={} age={} idle={idle} flags={flags} db={} sub={sub} psub={psub} ssub={ssub} \
         multi={multi} qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={} oll=0 omem=0 tot-mem={} events=r \
         cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={}\n",
        client.id,
        client.peer,
        client.local,
        text(&about.name),
        age.as_secs(),
        client.database.load(Relaxed),
        client.held.load(Relaxed),
        client.owed.load(Relaxed),
        client.cost(),
        if about.command.is_empty() { "client|list" } else { &about.command },
        about.user,
        client.resp.load(Relaxed),
        text(&about.library),
        text(&about.library_version),
    )
}
