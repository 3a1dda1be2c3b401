//! What a user of the proxy's own is told of itself by ACL LIST, USERS, GETUSER, DRYRUN and LOG, in the form of the servers. It
//! is the only user that it knows of.

use std::sync::Arc;

use bytes::Bytes;

use super::caller::Caller;
use crate::{
    clients::{
        refused::{Entry, now},
        users::LoggedIn,
    },
    commands::{
        rules::{RefusalContext, Rules, Shown},
        table::{CommandTable, traits::AboutUsers},
    },
    protocol::{
        resp::{
            Request,
            request::{RequestWriter, decimal},
            write,
        },
        says,
    },
};

/// Entries of ACL LOG that are told where nobody says how many.
const ENTRIES: usize = 10;
/// The flags of a user that works, as ACL GETUSER tells them.
const FLAGS: [&str; 2] = ["on", "sanitize-payload"];

/// The reply to a request about users; `None` for one that changes them.
pub(super) fn answer(
    caller: &Caller,
    logged_in: &LoggedIn,
    about: AboutUsers,
    table: &Arc<CommandTable>,
    request: &Request<'_>,
) -> Option<Bytes> {
    let user = &logged_in.user;
    let is_itself = request.arg(2) == user.name.as_bytes();
    let rules = || user.rules().unwrap_or_else(|| Rules::all().into());
    let mut out = Vec::new();
    match about {
        AboutUsers::Nothing | AboutUsers::Changes => return None,
        AboutUsers::Names => {
            write::array(&mut out, 1);
            write::bulk(&mut out, user.name.as_bytes());
        }
        AboutUsers::List => {
            write::array(&mut out, 1);
            let head = format!("user {} {} ", user.name, FLAGS.join(" "));
            write::bulk(&mut out, &[head.as_bytes(), &rules().line()].concat());
        }
        AboutUsers::Rules if !is_itself => {
            out.extend_from_slice(if caller.speaks_resp3() { b"_\r\n" } else { b"*-1\r\n" })
        }
        AboutUsers::Rules => write_rules(&mut out, &rules(), caller.speaks_resp3()),
        AboutUsers::Dryrun if !is_itself => {
            let name = [b"ERR User '", request.arg(2), b"' not found"].concat();
            write::error(&mut out, &name);
        }
        AboutUsers::Dryrun => dry_run(&mut out, caller, logged_in, table, request),
        AboutUsers::Log if request.is(2, "RESET") => {
            user.refused.clear();
            write::simple(&mut out, "OK");
        }
        AboutUsers::Log => match request.get(2).map(decimal) {
            Some(None) => write::error(&mut out, says::NOT_INTEGER.as_bytes()),
            most => {
                let most = most.flatten().map_or(ENTRIES, |most| usize::try_from(most).unwrap_or(0));
                let entries = user.refused.newest(most);
                write::array(&mut out, entries.len());
                entries.iter().for_each(|entry| write_entry(&mut out, entry, caller, &user.name));
            }
        },
    }
    Some(out.into())
}

fn dry_run(out: &mut Vec<u8>, caller: &Caller, logged_in: &LoggedIn, table: &Arc<CommandTable>, request: &Request<'_>) {
    let mut writer = RequestWriter::default();
    writer.begin(request.len() - 3);
    request.args().skip(3).for_each(|arg| writer.push(&[arg]));
    let asked = writer.request();
    let Some(spec) = table.find(&asked).filter(|spec| !spec.container) else {
        return write::error(out, &[b"ERR Command '", asked.name(), b"' not found"].concat());
    };
    if !spec.takes(asked.len()) {
        return write::error(out, says::wrong_arity(&spec.name).as_bytes());
    }
    let context = RefusalContext { user: &logged_in.user.name, command: &spec.name, is_old: is_old(caller) };
    match logged_in
        .rights(table)
        .and_then(|rights| rights.refusal(spec, &asked).map(|refusal| refusal.dry_run(context)))
    {
        None => write::simple(out, "OK"),
        Some(why) => write::bulk(out, &why),
    }
}

/// Whether the words are those of Redis before 7.2.
fn is_old(caller: &Caller) -> bool {
    !caller.dialect().since((7, 2))
}

fn map(out: &mut Vec<u8>, fields: usize, resp3: bool) {
    match resp3 {
        true => write::head(out, b'%', fields as i64),
        false => write::array(out, 2 * fields),
    }
}

/// ACL GETUSER. Passwords are not told, nor what is made of them.
fn write_rules(out: &mut Vec<u8>, rules: &Rules, resp3: bool) {
    let shown = rules.shown();
    map(out, 6, resp3);
    write::bulk(out, b"flags");
    write::head(out, if resp3 { b'~' } else { b'*' }, FLAGS.len() as i64);
    FLAGS.iter().for_each(|flag| write::bulk(out, flag.as_bytes()));
    write::bulk(out, b"passwords");
    write::array(out, 0);
    let fields = |out: &mut Vec<u8>, selector: &Shown| {
        for (name, value) in
            [("commands", &selector.commands), ("keys", &selector.keys), ("channels", &selector.channels)]
        {
            write::bulk(out, name.as_bytes());
            write::bulk(out, value);
        }
    };
    if let Some((own, others)) = shown.split_first() {
        fields(out, own);
        write::bulk(out, b"selectors");
        write::array(out, others.len());
        for selector in others {
            map(out, 3, resp3);
            fields(out, selector);
        }
    }
}

fn write_entry(out: &mut Vec<u8>, entry: &Entry, caller: &Caller, user: &str) {
    let (resp3, is_old) = (caller.speaks_resp3(), is_old(caller));
    map(out, if is_old { 7 } else { 10 }, resp3);
    write::bulk(out, b"count");
    write::integer(out, entry.count as i64);
    let texts = [
        ("reason", entry.what.reason.as_bytes()),
        ("context", entry.what.context.as_bytes()),
        ("object", &entry.what.object),
        ("username", user.as_bytes()),
    ];
    for (name, value) in texts {
        write::bulk(out, name.as_bytes());
        write::bulk(out, value);
    }
    write::bulk(out, b"age-seconds");
    let age = now().saturating_sub(entry.times[1]);
    let age = format!("{}.{:03}", age / 1000, age % 1000);
    match resp3 {
        true => out.extend_from_slice(format!(",{age}\r\n").as_bytes()),
        false => write::bulk(out, age.as_bytes()),
    }
    write::bulk(out, b"client-info");
    write::bulk(out, &entry.client);
    if !is_old {
        let numbers =
            [("entry-id", entry.id), ("timestamp-created", entry.times[0]), ("timestamp-last-updated", entry.times[1])];
        for (name, value) in numbers {
            write::bulk(out, name.as_bytes());
            write::integer(out, value as i64);
        }
    }
}
