//! A client's line in CLIENT LIST.

use std::sync::atomic::Ordering::Relaxed;

use super::Dialect;
use crate::{
    clients::{Client, Mark, Usage},
    protocol::endpoint::Endpoint,
    session::Session,
    upstream::ticket::Line,
};

/// As much of the replies as a server keeps in one buffer; the rest is in a list.
const REPLY_BUFFER: usize = 16 * 1024;

/// The line, with the fields that the servers behind have. What is told of memory is about the proxy's.
pub(in crate::session) fn line_of(client: &Client, usage: &Usage, dialect: Dialect) -> String {
    let about = client.about().clone();
    // Servers write them up to a NUL.
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned();
    let age = client.since.elapsed();
    let [sub, psub, ssub] = [0, 1, 2].map(|kind| client.subscriptions[kind].load(Relaxed));
    let multi = match client.queued.load(Relaxed) {
        usize::MAX => -1,
        queued => queued as i64,
    };
    let redirect = if client.has(Mark::Tracking) { client.redirect.load(Relaxed) } else { -1 };
    let capa = if client.has(Mark::CapaRedirect) { "r" } else { "" };
    let capa = if dialect.valkey { format!(" capa={capa}") } else { String::new() };
    let watch = if dialect.since((7, 4)) { " watch=0" } else { "" };
    let in_buffer = usage.output.min(REPLY_BUFFER);
    let in_list = usage.output - in_buffer + usage.parked;
    let elements = usage.waiting + usize::from(usage.output > in_buffer);
    let buffer = usage.output_capacity.min(REPLY_BUFFER);
    let at_rest = size_of::<Session>() + size_of::<Client>() + size_of::<Line>();
    let total = at_rest + usage.total() - in_buffer + buffer + usage.input_free;
    let events = if usage.output > 0 { "rw" } else { "r" };
    let mut line = format!(
        "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags={}{capa} db={} sub={sub} psub={psub} ssub={ssub} \
         multi={multi}{watch} qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={buffer} rbp={} obl={in_buffer} \
         oll={elements} omem={in_list} tot-mem={total} events={events} cmd={} user={} redir={redirect} resp={}",
        client.id,
        client.peer(),
        client.local(),
        text(&about.name),
        age.as_secs(),
        client.idle().as_secs(),
        flags(client),
        client.database.load(Relaxed),
        usage.input,
        usage.input_free,
        usage.arguments,
        usage.queued,
        usage.peak().min(REPLY_BUFFER),
        client.last_command(),
        about.user,
        client.resp.load(Relaxed),
    );
    if dialect.since((7, 2)) {
        line += &format!(" lib-name={} lib-ver={}", text(&about.library), text(&about.library_version));
    }
    if dialect.valkey {
        let [received, sent] = [0, 1].map(|way| client.traffic[way].load(Relaxed));
        line += &format!(" tot-net-in={received} tot-net-out={sent} tot-cmds={}", client.commands.load(Relaxed));
    }
    line.push('\n');
    line
}

/// Its flags, as letters.
pub(super) fn flags(client: &Client) -> String {
    let flags = [
        ('O', client.has(Mark::Monitor)),
        ('P', subscribes(client)),
        ('x', client.queued.load(Relaxed) != usize::MAX),
        ('b', client.waits()),
        ('t', client.has(Mark::Tracking)),
        ('R', client.has(Mark::BrokenRedirect)),
        ('B', client.has(Mark::Broadcast)),
        ('c', client.has(Mark::Closing)),
        ('e', client.has(Mark::NoEvict)),
        ('T', client.has(Mark::NoTouch)),
        ('U', matches!(client.peer(), Endpoint::Unix(_))),
    ];
    let set: String = flags.iter().filter(|(_, set)| *set).map(|(flag, _)| *flag).collect();
    if set.is_empty() { "N".to_owned() } else { set }
}

pub(super) fn subscribes(client: &Client) -> bool {
    client.subscriptions.iter().any(|count| count.load(Relaxed) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::caller::Caller,
        upstream::router::scripted::{Scripted, within_a_minute},
    };

    #[tokio::test(start_paused = true)]
    async fn a_line_tells_what_the_client_has_said_and_holds() {
        within_a_minute(async {
            let caller = Caller::of(&Scripted::new(1));
            let client = &caller.client;
            let line = |usage| line_of(client, &usage, caller.dialect());
            let field = |line: &str, name: &str| {
                let fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                fields.iter().find_map(|field| Some(field.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
            };
            let fresh = line(Usage::default());
            for (name, value) in
                [("flags", "N"), ("sub", "0"), ("multi", "-1"), ("redir", "-1"), ("events", "r"), ("resp", "2")]
            {
                assert_eq!(field(&fresh, name).as_deref(), Some(value), "{name} in {fresh}");
            }
            client.about().name = b"shop\0hidden".to_vec();
            client.queued.store(3, Relaxed);
            client.subscriptions[1].store(2, Relaxed);
            client.mark(Mark::Tracking, true);
            let busy = line(Usage { output: 20_000, output_capacity: 32_768, queued: 5, ..Usage::default() });
            for (name, value) in [
                ("name", "shop"),
                ("multi", "3"),
                ("psub", "2"),
                ("flags", "Pxt"),
                ("multi-mem", "5"),
                ("obl", "16384"),
                ("oll", "1"),
                ("omem", "3616"),
                ("events", "rw"),
            ] {
                assert_eq!(field(&busy, name).as_deref(), Some(value), "{name} in {busy}");
            }
        })
        .await;
    }
}
