//! What becomes of a command in a database of its own ([`crate::commands::database`]): where a request names keys beside its
//! key positions, and where a reply does.
//!
//! This is a list of what is allowed. A command that is not on it is refused there, since it might reach what belongs to
//! others: keys are kept apart by nothing but what is known of each command.

mod names;

use self::names::{KEYED, KEYLESS};
use super::{
    super::database::ChannelUse,
    keys::Finder,
    spec::Spec,
    treatment::{Local, Scripting, Treatment},
};

/// What becomes of a command's requests in a database of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDatabase {
    /// Refused, and why.
    Refused(&'static str),
    /// Refused, and why, unless the configuration allows it: it is about no keys, but acts on all databases, or shows them.
    OnAll(&'static str),
    /// As by a server that is in no cluster.
    NoCluster,
    /// The request goes on as it came: it is about no keys.
    AsItCame,
    /// Its keys are named as they are kept.
    Keys,
    /// SORT: likewise, and the patterns of BY and GET.
    Sort,
    /// COPY: likewise, but to no other database.
    Copy,
    /// KEYS: so is its pattern.
    Pattern,
    /// SCAN: so is the pattern of MATCH, which it is given where it has none.
    Scan,
    /// What runs scripts or keeps them: they see the database's world.
    Script(Code),
    /// INFO: of keys it says nothing.
    Info,
    /// PUBSUB SHARDCHANNELS: its pattern is named as channels are kept, and it is given one where it has none.
    ShardChannels,
    /// What has to do with channels, where these are the database's own.
    Channels(ChannelUse),
    /// All its arguments from here on are named as keys are kept.
    AllFrom(usize),
    /// DBSIZE: the keys of the slot are counted.
    Count,
    /// RANDOMKEY: one of the slot's keys is taken.
    Random,
    /// FLUSHDB: the keys of the slot are removed that are the database's.
    Flush,
    /// FLUSHALL: likewise, in each database that its client can SELECT.
    FlushAll,
    /// CONFIG SET: it changes nothing.
    ConfigSet,
    /// DEBUG: only of keys.
    Debug,
    /// From this argument on it has another command.
    Inner(usize),
    /// What nodes log is asked for by these words: the client is told of what is its own, as many entries as it says.
    Log(&'static [&'static str]),
}

/// What a command does with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// EVAL: it runs a text.
    Eval,
    /// EVALSHA: it runs what has been said before.
    Evalsha,
    /// SCRIPT LOAD: it keeps a text.
    Load,
    /// SCRIPT EXISTS: it asks for what is kept.
    Exists,
    /// SCRIPT SHOW: it asks for a text.
    Show,
    /// SCRIPT FLUSH: what is kept is forgotten.
    Flush,
}

impl Code {
    /// Whether a script runs by it.
    pub fn runs(self) -> bool {
        matches!(self, Code::Eval | Code::Evalsha)
    }
}

/// Where a reply names keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyKeys {
    /// Nowhere.
    #[default]
    Nothing,
    /// The reply is one.
    Key,
    /// All its elements are.
    Each,
    /// Every other of its elements is, from the first on.
    Pairs,
    /// Its first element is.
    First,
    /// All elements of its second element are: a page of SCAN.
    Page,
    /// The first of each of its elements, in RESP2, or what stands before each value of a map, in RESP3; and an error that
    /// there is no such group names one.
    Streams,
    /// An error that there is no such group names one.
    Group,
    /// Nowhere, but an error may name a script.
    Script,
    /// An error may name a script, and the reply is a script's name itself.
    Digest,
    /// Nowhere, but an error may be that of a script that the client knows nothing of.
    Whole,
    /// It is a sentence that may have one between quotes.
    Sentence,
    /// It is a list of channels, some of which may be of keyspace notifications.
    Channels,
    /// Every other of its elements is a channel, from the first on.
    ChannelPairs,
    /// It is a log of commands, each with its keys.
    Slowlog,
    /// Likewise, of which only the number is wanted.
    SlowlogLength,
    /// It is a log of what was denied, some of it for its keys.
    AclLog,
    /// The replies to what a transaction has queued do, each as its command has it.
    Replies,
}

const NOT_YET: &str = "the proxy does not know yet how to keep it within the database";
const SHOWS_ALL: &str = "it would show the keys of other databases";
const CHANGES_ALL: &str = "it would act on all databases of the cluster";

const NEEDS_TWO: &str =
    "two databases are in two slots, and nothing is atomic over both; DUMP here and RESTORE there do it in steps";

/// What shows what is others'.
const SHOW_ALL: &[&str] = &["acl|getuser", "acl|list", "acl|users", "clusterscan", "commandlog|get", "commandlog|len"];

/// What acts on all nodes, or on what all share.
const CHANGE_ALL: &[&str] = &[
    "bgrewriteaof",
    "bgsave",
    "commandlog|reset",
    "config|resetstat",
    "function|delete",
    "function|flush",
    "function|kill",
    "function|load",
    "function|restore",
    "latency|reset",
    "memory|purge",
    "script|kill",
    "slowlog|reset",
];

impl InDatabase {
    /// What is otherwise for a client there than at one server, in a sentence for users; `None` where nothing is.
    pub fn words(self, spec: &Spec) -> Option<String> {
        let words = match self {
            InDatabase::Refused(reason) => return Some(format!("refused: {reason}")),
            InDatabase::OnAll(reason) => return Some(format!("refused unless `allow`ed: {reason}")),
            InDatabase::NoCluster => "refused, as by a server that is in no cluster",
            InDatabase::Keys if spec.treatment == Treatment::Scripting(Scripting::Fcall) => {
                "functions belong to the whole cluster: they are given the keys as they are kept, with the prefix"
            }
            InDatabase::Copy => "without the option DB",
            InDatabase::Count => "of more than 10,000 keys in its slot, those of others are counted, too",
            InDatabase::Scan => "a database of few keys is one page, and so is what is left of any within MULTI",
            InDatabase::Script(Code::Flush) => "the database's own: nodes keep what they have, for others",
            InDatabase::Script(_) => {
                "behind a prologue, so that scripts see the database's names; known by its digest only where it came by this proxy"
            }
            InDatabase::FlushAll => {
                "all databases of its name, one after the other: not within MULTI, where there are several"
            }
            InDatabase::ConfigSet => {
                "done where nothing changes by it, else refused unless `allow`ed: it would act on all databases of the cluster"
            }
            InDatabase::Debug => "only what looks at keys; the rest, about whole nodes, where it is `allow`ed",
            InDatabase::ShardChannels | InDatabase::AllFrom(_) => {
                "shard channels are the database's own, each number's"
            }
            InDatabase::Log(_) => "what names keys of the database; where it is `allow`ed, also what names none",
            InDatabase::Info => {
                "its keyspace lines are of the client's databases; of many keys how many expire is estimated"
            }
            InDatabase::AsItCame if spec.treatment == Treatment::Local(Local::Monitor) => {
                "shows what is done in the client's databases; of others' connections, what has keys"
            }
            InDatabase::Channels(ChannelUse::CountPatterns) => {
                "with `isolate_channels`, those of clients of this proxy; else also those by which the proxy hears notifications"
            }
            InDatabase::Channels(_) => {
                "with `isolate_channels`, about the database's own channels; else about those of all"
            }
            InDatabase::AsItCame
            | InDatabase::Keys
            | InDatabase::Sort
            | InDatabase::Pattern
            | InDatabase::Random
            | InDatabase::Flush
            | InDatabase::Inner(_) => return None,
        };
        Some(words.to_owned())
    }
}

/// The columns of a row.
pub fn of(spec: &Spec) -> (InDatabase, ReplyKeys) {
    let (inside, tells) = by_name(&spec.name);
    match inside {
        // What only a server can find cannot be named anew.
        InDatabase::Keys if matches!(spec.finder, Finder::None | Finder::Server) => {
            (InDatabase::Refused(NOT_YET), tells)
        }
        InDatabase::OnAll(reason) if spec.has_keys() => (InDatabase::Refused(reason), tells),
        // The proxy answers, and says what it is to the client.
        InDatabase::NoCluster if answers_for_cluster(spec.treatment) => (InDatabase::AsItCame, tells),
        // The container itself is what has an unknown subcommand.
        InDatabase::Refused(_) if spec.container && spec.name.find('|').is_none() => (InDatabase::AsItCame, tells),
        // It may be that nobody is served it, wherever.
        InDatabase::Refused(NOT_YET) => match super::refused::why(&spec.name) {
            Some(reason) if !spec.has_keys() => (InDatabase::OnAll(reason), tells),
            reason => (InDatabase::Refused(reason.unwrap_or(NOT_YET)), tells),
        },
        inside => (inside, tells),
    }
}

fn answers_for_cluster(treatment: Treatment) -> bool {
    matches!(treatment, Treatment::ClusterView(_) | Treatment::Local(Local::ClusterKeyslot))
}

fn by_name(name: &str) -> (InDatabase, ReplyKeys) {
    let inside = match name {
        "sort" | "sort_ro" => InDatabase::Sort,
        "copy" => InDatabase::Copy,
        "keys" => return (InDatabase::Pattern, ReplyKeys::Whole),
        "scan" => return (InDatabase::Scan, ReplyKeys::Page),
        "info" => InDatabase::Info,
        "pubsub|shardchannels" => return (InDatabase::ShardChannels, ReplyKeys::Each),
        "pubsub|shardnumsub" => return (InDatabase::AllFrom(2), ReplyKeys::Pairs),
        "ssubscribe" | "sunsubscribe" => InDatabase::AllFrom(1),
        "dbsize" => return (InDatabase::Count, ReplyKeys::Whole),
        "randomkey" => return (InDatabase::Random, ReplyKeys::Whole),
        "flushdb" => return (InDatabase::Flush, ReplyKeys::Whole),
        "flushall" => return (InDatabase::FlushAll, ReplyKeys::Whole),
        "blmpop" | "blpop" | "brpop" | "bzmpop" | "bzpopmax" | "bzpopmin" | "lmpop" | "zmpop" => {
            return (InDatabase::Keys, ReplyKeys::First);
        }
        "xread" | "xreadgroup" => return (InDatabase::Keys, ReplyKeys::Streams),
        "xautoclaim"
        | "xclaim"
        | "xgroup|createconsumer"
        | "xgroup|delconsumer"
        | "xgroup|setid"
        | "xinfo|consumers"
        | "xpending" => return (InDatabase::Keys, ReplyKeys::Group),
        "acl|dryrun" => return (InDatabase::Inner(3), ReplyKeys::Sentence),
        "acl|log" => return (InDatabase::Log(&["ACL", "LOG", "128"]), ReplyKeys::AclLog),
        "pubsub|channels" => return (InDatabase::Channels(ChannelUse::List), ReplyKeys::Channels),
        "pubsub|numsub" => return (InDatabase::Channels(ChannelUse::Channels(2)), ReplyKeys::ChannelPairs),
        "pubsub|numpat" => InDatabase::Channels(ChannelUse::CountPatterns),
        "publish" => InDatabase::Channels(ChannelUse::Publish),
        "subscribe" | "unsubscribe" => InDatabase::Channels(ChannelUse::Channels(1)),
        "psubscribe" | "punsubscribe" => InDatabase::Channels(ChannelUse::Patterns(1)),
        "slowlog|get" => return (InDatabase::Log(&["SLOWLOG", "GET", "-1"]), ReplyKeys::Slowlog),
        "slowlog|len" => return (InDatabase::Log(&["SLOWLOG", "GET", "-1"]), ReplyKeys::SlowlogLength),
        "config|set" => InDatabase::ConfigSet,
        "debug" => InDatabase::Debug,
        "eval" | "eval_ro" => return (InDatabase::Script(Code::Eval), ReplyKeys::Script),
        "evalsha" | "evalsha_ro" => return (InDatabase::Script(Code::Evalsha), ReplyKeys::Script),
        "script|load" => return (InDatabase::Script(Code::Load), ReplyKeys::Digest),
        "script|show" => InDatabase::Script(Code::Show),
        "script|exists" => InDatabase::Script(Code::Exists),
        "script|flush" => InDatabase::Script(Code::Flush),
        "exec" => return (InDatabase::AsItCame, ReplyKeys::Replies),
        _ if KEYED.contains(&name) => InDatabase::Keys,
        _ if KEYLESS.contains(&name) => InDatabase::AsItCame,
        _ if name == "cluster" || name.starts_with("cluster|") => InDatabase::NoCluster,
        _ if SHOW_ALL.contains(&name) => InDatabase::OnAll(SHOWS_ALL),
        _ if CHANGE_ALL.contains(&name) => InDatabase::OnAll(CHANGES_ALL),
        "move" | "swapdb" => InDatabase::Refused(NEEDS_TWO),
        _ => InDatabase::Refused(NOT_YET),
    };
    (inside, ReplyKeys::Nothing)
}
