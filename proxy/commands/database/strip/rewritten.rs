//! Replies that can only be told once they are whole: what is others' is left out of them.

use crate::{
    commands::{
        database::{Database, Said, WrappedScripts},
        merge::elements::Elements,
        table::in_database::ReplyKeys,
    },
    protocol::resp::{Value, write},
};

/// Whether a reply that tells this has to be whole.
pub fn takes_all(tells: ReplyKeys) -> bool {
    matches!(
        tells,
        ReplyKeys::Sentence
            | ReplyKeys::Channels
            | ReplyKeys::ChannelPairs
            | ReplyKeys::Slowlog
            | ReplyKeys::SlowlogLength
            | ReplyKeys::AclLog
    )
}

/// How a log is told.
#[derive(Clone, Copy, Debug)]
pub struct LogView {
    /// At most so many entries are.
    pub most: usize,
    /// Commands without keys are, too: nobody knows whose they were.
    pub with_keyless: bool,
}

/// The reply as the client is told it. What is not understood passes as it is, but for lists that may have what is others'.
pub fn rewritten(
    database: &Database,
    scripts: &WrappedScripts,
    (tells, LogView { most, with_keyless }): (ReplyKeys, LogView),
    reply: &[u8],
) -> Vec<u8> {
    let slow_command = |entry: &[u8]| slow_command(database, scripts, with_keyless, entry);
    let told = match tells {
        ReplyKeys::Sentence => sentence(database, reply),
        ReplyKeys::Channels => list(reply, usize::MAX, |channel| own_channel(database, channel)),
        ReplyKeys::ChannelPairs => channel_pairs(database, reply),
        ReplyKeys::Slowlog => list(reply, most, slow_command),
        ReplyKeys::SlowlogLength => Elements::of(reply).map(|entries| {
            let mut out = Vec::new();
            let own = entries.filter(|entry| slow_command(entry).is_some());
            write::integer(&mut out, own.count() as i64);
            out
        }),
        ReplyKeys::AclLog => list(reply, most, |entry| denied(database, entry)),
        ReplyKeys::Nothing | ReplyKeys::Key | ReplyKeys::Each | ReplyKeys::Pairs | ReplyKeys::First => None,
        ReplyKeys::Page | ReplyKeys::Streams | ReplyKeys::Group | ReplyKeys::Replies => None,
        ReplyKeys::Script | ReplyKeys::Digest | ReplyKeys::Whole => None,
    };
    told.unwrap_or_else(|| reply.to_vec())
}

/// The elements that `tell` has something to say of.
fn list(reply: &[u8], most: usize, tell: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let elements = Elements::of(reply)?;
    let kind = elements.head.kind;
    let own: Vec<Vec<u8>> = elements.filter_map(tell).take(most).collect();
    let mut out = Vec::new();
    write::head(&mut out, kind, own.len() as i64);
    own.iter().for_each(|element| out.extend_from_slice(element));
    Some(out)
}

fn text_of(element: &[u8]) -> Option<Vec<u8>> {
    Some(Value::parse(element).ok()??.0.text()?.to_vec())
}

/// A sentence that names a key between quotes.
fn sentence(database: &Database, reply: &[u8]) -> Option<Vec<u8>> {
    let text = text_of(reply)?;
    let quoted = [b"'", database.prefix()].concat();
    let at = text.windows(quoted.len()).position(|part| part == quoted)? + 1;
    let mut out = Vec::new();
    write::bulk(&mut out, &[&text[..at], &text[at + database.prefix().len()..]].concat());
    Some(out)
}

/// A channel that clients subscribe to: that of a keyspace notification has a key in it.
fn own_channel(database: &Database, element: &[u8]) -> Option<Vec<u8>> {
    let name = text_of(element)?;
    if let Some(channels) = &database.channels {
        let mut out = Vec::new();
        write::bulk(&mut out, channels.own(&name, false)?);
        return Some(out);
    }
    let Some(rest) = name.strip_prefix(b"__keyspace@") else { return Some(element.to_vec()) };
    let head = name.len() - rest.len() + rest.windows(3).position(|part| part == b"__:")? + 3;
    let mut out = Vec::new();
    write::bulk(&mut out, &[&name[..head], database.own(&name[head..])?].concat());
    Some(out)
}

/// Channels and numbers in turn.
fn channel_pairs(database: &Database, reply: &[u8]) -> Option<Vec<u8>> {
    let channels = database.channels.as_ref()?;
    let elements = Elements::of(reply)?;
    let mut out = Vec::new();
    write::head(&mut out, elements.head.kind, elements.head.count as i64);
    for (index, element) in elements.enumerate() {
        match text_of(element).filter(|_| index % 2 == 0) {
            Some(name) => write::bulk(&mut out, channels.own(&name, false).unwrap_or(&name)),
            None => out.extend_from_slice(element),
        }
    }
    Some(out)
}

/// An entry of SLOWLOG: its fourth element are the words of the command.
fn slow_command(database: &Database, scripts: &WrappedScripts, with_keyless: bool, entry: &[u8]) -> Option<Vec<u8>> {
    const WORDS: usize = 3;
    let fields = Elements::of(entry)?;
    let mut out = Vec::new();
    write::array(&mut out, fields.head.count);
    for (at, field) in fields.enumerate() {
        if at != WORDS {
            out.extend_from_slice(field);
            continue;
        }
        let (words, _) = Value::parse(field).ok()??;
        let words: Vec<&[u8]> = words.items().iter().filter_map(Value::text).collect();
        let said = match database.said(&words, &scripts.commands(), scripts) {
            Said::Own(said) => said,
            Said::Keyless if with_keyless => words.into_iter().map(<[u8]>::to_vec).collect(),
            Said::Keyless | Said::Others => return None,
        };
        write::array(&mut out, said.len());
        said.iter().for_each(|word| write::bulk(&mut out, word));
    }
    Some(out)
}

/// An entry of ACL LOG: names and values in turn, or a map. Only that for a key says whose it is.
fn denied(database: &Database, entry: &[u8]) -> Option<Vec<u8>> {
    let (fields, _) = Value::parse(entry).ok()??;
    if fields.field("reason")?.text()? != b"key" {
        return None;
    }
    let object = fields.field("object")?.text()?;
    let own = database.own(object)?;
    let (mut from, mut to) = (Vec::new(), Vec::new());
    write::bulk(&mut from, object);
    write::bulk(&mut to, own);
    let at = entry.windows(from.len()).position(|part| part == from)?;
    Some([&entry[..at], &to, &entry[at + from.len()..]].concat())
}
