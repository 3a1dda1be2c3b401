//! Channels of a database's own clients (`isolate_channels`). They are kept with its prefix, as keys are: nobody else hears
//! what is published there. Databases of one name have them together, as those of one server have.

use super::{Database, Entered};
use crate::protocol::resp::{Request, request::RequestWriter};

/// How channels of databases of one name are known to nodes.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnChannels {
    /// What stands before each channel, and before each pattern.
    pub(super) prefix: Box<[u8]>,
    pattern: Box<[u8]>,
}

/// What a command does with channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelUse {
    /// PUBLISH: its first argument is one.
    Publish,
    /// Its arguments from here on are channels.
    Channels(usize),
    /// Its arguments from here on are patterns.
    Patterns(usize),
    /// PUBSUB CHANNELS: those that match a pattern, or all.
    List,
    /// PUBSUB NUMPAT: patterns are counted.
    CountPatterns,
}

/// What the servers themselves publish, each to whom it is for.
const OF_SERVERS: [&[u8]; 3] = [b"__keyspace@", b"__keyevent@", b"__redis__:"];

impl OwnChannels {
    pub(super) fn of(database: &Database) -> OwnChannels {
        OwnChannels { prefix: database.prefix.clone(), pattern: database.pattern.clone() }
    }

    /// A channel or a pattern as clients know it; `None` where it is not theirs alone.
    pub fn own<'a>(&self, name: &'a [u8], is_pattern: bool) -> Option<&'a [u8]> {
        name.strip_prefix(if is_pattern { &*self.pattern } else { &*self.prefix })
    }

    fn before(&self, name: &[u8], is_pattern: bool) -> &[u8] {
        match is_pattern {
            _ if OF_SERVERS.iter().any(|start| name.starts_with(start)) => b"",
            true => &self.pattern,
            false => &self.prefix,
        }
    }
}

impl Database {
    /// What has to do with channels, where these are the database's own.
    pub(super) fn enter_channels(&self, request: &Request, what: ChannelUse, writer: &mut RequestWriter) -> Entered {
        let Some(channels) = &self.channels else { return Entered::AsItCame };
        let (first, is_pattern) = match what {
            ChannelUse::CountPatterns => return Entered::CountsPatterns,
            ChannelUse::Publish => {
                writer.begin(request.len());
                for (index, arg) in request.args().enumerate() {
                    writer.push(&[if index == 1 { &channels.prefix } else { b"" }, arg]);
                }
                return Entered::Rewritten;
            }
            ChannelUse::List => {
                writer.begin(3);
                [request.name(), request.arg(1)].into_iter().for_each(|arg| writer.push(&[arg]));
                writer.push(&[&channels.pattern, request.get(2).unwrap_or(b"*")]);
                return Entered::Rewritten;
            }
            ChannelUse::Channels(first) => (first, false),
            ChannelUse::Patterns(first) => (first, true),
        };
        writer.begin(request.len());
        for (index, arg) in request.args().enumerate() {
            let before = if index >= first { channels.before(arg, is_pattern) } else { b"" };
            writer.push(&[before, arg]);
        }
        Entered::Rewritten
    }
}
