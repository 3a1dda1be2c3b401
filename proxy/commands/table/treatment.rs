//! What a command means for a proxy in front of many nodes: decided once per row, by the server's tips, and by name
//! where tips say nothing or not enough.

use super::{
    refused,
    spec::{RequestPolicy, ResponsePolicy, Spec},
};

/// What becomes of a command's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// A request goes to the slot of its keys; without keys to any primary.
    Keyed,
    /// A request goes to the slot of its keys, but keys in several slots are asked for slot by slot.
    Split(MergeRule),
    /// A request goes to every primary.
    Primaries(MergeRule),
    /// `KEYS pattern`: every primary, or one slot where the pattern has a hash tag.
    KeysPattern,
    /// SCAN: one primary after the other.
    Scan,
    /// Its second argument is the number of a slot.
    SlotNumber,
    /// A request goes to the one primary that all publishing goes through.
    PubSub,
    /// The proxy itself answers or acts.
    Local(Local),
    /// A request may wait, for as long as an argument says.
    Blocking(Timeout),
    /// XREAD and XREADGROUP wait only where BLOCK is given.
    BlockingStreams,
    /// CONFIG SET goes to every primary, unless it would break the cluster or the proxy.
    ConfigSet,
    /// DEBUG, of which little is harmless.
    Debug,
    /// The command is about scripts or functions, which every primary must have.
    Scripting(Scripting),
    /// A request goes to every primary and past what runs there: a node that is busy with a script answers nothing else.
    OutOfBand(MergeRule),
    /// A request goes to any primary, whose reply is amended to what one server would say.
    AnyRewritten(MergeRule),
    /// `ACL LOG [count|RESET]`: every primary has its own.
    AclLog,
    /// What a node says of its cluster: the proxy is in none, or is all of one; else tools would go to the nodes.
    ClusterView(ClusterView),
}

impl Treatment {
    /// Whether one request of a client's is a request to every primary.
    pub fn is_for_all(self) -> bool {
        use Scripting::{Exists, Flush, Load};
        let of_scripts = matches!(self, Treatment::Scripting(Load | Exists | Flush));
        let of_servers =
            matches!(self, Treatment::ConfigSet | Treatment::Debug | Treatment::OutOfBand(_) | Treatment::AclLog);
        of_scripts || of_servers || matches!(self, Treatment::Primaries(_) | Treatment::KeysPattern)
    }
}

/// What has to do with scripts and functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripting {
    /// `EVAL text ...`: the text is remembered.
    Eval,
    /// `EVALSHA digest ...`: the node may lack the script.
    Evalsha,
    /// `FCALL function ...`: the node may have no functions yet.
    Fcall,
    /// `SCRIPT LOAD text`.
    Load,
    /// `SCRIPT EXISTS digest...`.
    Exists,
    /// `SCRIPT SHOW digest`.
    Show,
    /// `SCRIPT FLUSH`: nothing is remembered any more.
    Flush,
}

impl Scripting {
    /// Whether it runs code, which may answer anything.
    pub fn runs(self) -> bool {
        matches!(self, Scripting::Eval | Scripting::Evalsha | Scripting::Fcall)
    }
}

/// How several replies become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeRule {
    /// The sum of integers.
    Sum,
    /// The first, where none is an error.
    AllSucceeded,
    /// The first that is no error.
    OneSucceeded,
    /// The elements of arrays, in the order of the request's keys.
    KeyOrder,
    /// The elements of arrays, sets or maps, one reply after the other.
    Concat,
    /// Logical and of integers, element by element in arrays.
    And,
    /// Logical or, likewise.
    Or,
    /// The least integer, likewise.
    Min,
    /// The greatest integer, likewise.
    Max,
    /// One of those that are not null, by chance.
    RandomKey,
    /// The text of INFO, as one server would write it.
    Info,
    /// The newest entries of SLOWLOG and COMMANDLOG, at most so many: nodes are asked for all of them.
    Newest(u32),
    /// How many entries SLOWLOG and COMMANDLOG have.
    Entries,
    /// The longest: the node that has most to say.
    Fullest,
    /// Alternating names and integers (`PUBSUB SHARDNUMSUB`): the integers are added up.
    SumByName,
    /// DEBUG DIGEST: of all keys, wherever they are.
    Digest,
    /// ROLE: a master whose replicas are nobody's business.
    Role,
    /// CONFIG GET: what holds for the proxy instead of one of its nodes.
    Config,
    /// LATENCY LATEST: the events of all nodes.
    Latest,
    /// LATENCY HISTORY: the samples of all nodes, by time.
    ByTime,
    /// LATENCY HISTOGRAM: the calls of all nodes.
    Histogram,
    /// MEMORY STATS: sizes added up, ratios averaged.
    Memory,
    /// ACL LOG: the youngest entries, at most so many.
    Youngest(u32),
}

impl MergeRule {
    /// How the replies become one, for people.
    pub fn words(self) -> &'static str {
        match self {
            MergeRule::Sum => "added up",
            MergeRule::AllSucceeded => "OK where no node has an error",
            MergeRule::OneSucceeded => "the first that is no error",
            MergeRule::KeyOrder => "put into the order of the keys",
            MergeRule::Concat => "one behind the other",
            MergeRule::And => "1 where all nodes say 1",
            MergeRule::Or => "1 where any node says 1",
            MergeRule::Min => "the least",
            MergeRule::Max => "the greatest",
            MergeRule::RandomKey => "one of them, by chance",
            MergeRule::Info => "put together as one server's",
            MergeRule::Newest(_) | MergeRule::Youngest(_) => "the newest entries of all nodes",
            MergeRule::Entries => "their entries counted",
            MergeRule::Fullest => "the one that says most",
            MergeRule::SumByName => "added up name by name",
            MergeRule::Role => "without replicas",
            MergeRule::Config => "with the proxy's own values where they differ",
            MergeRule::Latest => "the latest of each event",
            MergeRule::ByTime => "in the order of time",
            MergeRule::Histogram => "added up bucket by bucket",
            MergeRule::Memory => "sizes added up, ratios averaged",
            MergeRule::Digest => "of all keys",
        }
    }
}

/// What the session does itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// `PING [message]`.
    Ping,
    /// `ECHO message`.
    Echo,
    /// `HELLO [version [AUTH user password] [SETNAME name]]`.
    Hello,
    /// `AUTH [user] password`.
    Auth,
    /// `SELECT database`.
    Select,
    /// `QUIT`.
    Quit,
    /// `RESET`.
    Reset,
    /// `READONLY`.
    Readonly,
    /// `READWRITE`.
    Readwrite,
    /// `ASKING`: means nothing to a client of the proxy.
    Asking,
    /// `CLIENT` and a subcommand.
    Client(ClientCommand),
    /// `MULTI`.
    Multi,
    /// `EXEC`.
    Exec,
    /// `DISCARD`.
    Discard,
    /// `WATCH key...`.
    Watch,
    /// `UNWATCH`.
    Unwatch,
    /// `SUBSCRIBE channel...`.
    Subscribe,
    /// `PSUBSCRIBE pattern...`.
    Psubscribe,
    /// `SSUBSCRIBE channel...`.
    Ssubscribe,
    /// `UNSUBSCRIBE [channel...]`.
    Unsubscribe,
    /// `PUNSUBSCRIBE [pattern...]`.
    Punsubscribe,
    /// `SUNSUBSCRIBE [channel...]`.
    Sunsubscribe,
    /// `MONITOR`.
    Monitor,
    /// `WAIT replicas timeout`: about the connections that carried this client's writes.
    Wait,
    /// `WAITAOF local replicas timeout`: likewise.
    Waitaof,
    /// `CLUSTER KEYSLOT key`.
    ClusterKeyslot,
    /// `CLUSTER` and a question about the cluster.
    ClusterView(ClusterView),
    /// `ACL WHOAMI`: whom the client has logged in as, here.
    AclWhoami,
    /// `PUBSUB NUMPAT` in a database whose channels are its own.
    CountPatterns,
    /// `SCRIPT FLUSH` in a database of its own.
    ForgetScripts,
    /// `PROXY` and a subcommand.
    Proxy(ProxyCommand),
}

impl Local {
    /// What becomes of it between MULTI and EXEC.
    pub fn within_multi(self) -> WithinMulti {
        match self {
            Local::Exec | Local::Discard | Local::Quit | Local::Reset => WithinMulti::ActsAtOnce,
            Local::Multi | Local::Watch => WithinMulti::IsRefused,
            Local::Ping | Local::Echo | Local::Hello | Local::Auth | Local::Select => WithinMulti::IsQueued,
            Local::Readonly | Local::Readwrite | Local::Asking | Local::Client(_) | Local::Unwatch => {
                WithinMulti::IsQueued
            }
            Local::Subscribe | Local::Psubscribe | Local::Ssubscribe => WithinMulti::IsQueued,
            Local::Unsubscribe | Local::Punsubscribe | Local::Sunsubscribe => WithinMulti::IsQueued,
            Local::Monitor | Local::Wait | Local::Waitaof | Local::AclWhoami | Local::Proxy(_) => WithinMulti::IsQueued,
            Local::ClusterKeyslot | Local::ClusterView(_) => WithinMulti::IsQueued,
            Local::CountPatterns | Local::ForgetScripts => WithinMulti::IsQueued,
        }
    }
}

/// What becomes of what the proxy answers itself, between MULTI and EXEC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithinMulti {
    /// It is carried out at once.
    ActsAtOnce,
    /// It is refused at once.
    IsRefused,
    /// It is queued, where it may be part of a transaction at all.
    IsQueued,
}

/// A question about the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterView {
    /// `CLUSTER SLOTS`.
    Slots,
    /// `CLUSTER SHARDS`.
    Shards,
    /// `CLUSTER NODES`.
    Nodes,
    /// `CLUSTER INFO`.
    Info,
    /// `CLUSTER MYID` and `MYSHARDID`.
    Id,
    /// `CLUSTER LINKS`.
    Links,
    /// `CLUSTER REPLICAS node`.
    Replicas,
    /// `CLUSTER COUNT-FAILURE-REPORTS node`.
    FailureReports,
    /// Any other.
    Other,
}

/// The subcommands of PROXY: the proxy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyCommand {
    /// `PROXY DATABASES`: those of their own that are in use.
    Databases,
    /// `PROXY CLIENTS`: who is connected, and costs most.
    Clients,
    /// `PROXY CONFIG [GET pattern]`: the settings in force.
    Config,
    /// `PROXY EVENTS [count]`: what has happened.
    Events,
    /// `PROXY HOTKEYS [count]`: what is asked for most.
    Hotkeys,
    /// `PROXY SLOTS`: who serves which.
    Slots,
    /// `PROXY SLOWLOG GET [count]`, `LEN`, `RESET`: what took long.
    Slowlog,
    /// `PROXY EXPLAIN command...`: how it would be served.
    Explain,
    /// `PROXY HELP`.
    Help,
    /// `PROXY INFO`: the proxy at a glance.
    Info,
    /// `PROXY NODE node command...`: to one node, on purpose.
    Node,
    /// `PROXY NODES`: which there are.
    Nodes,
    /// `PROXY READS primary|replica|nearest`: who answers what only reads.
    Reads,
    /// `PROXY RELOAD`: the configuration is read again.
    Reload,
    /// None of these.
    Unknown,
}

/// The subcommands of CLIENT, which are about the proxy's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ClientCommand {
    Caching,
    Capa,
    Getname,
    Getredir,
    Id,
    ImportSource,
    Info,
    Kill,
    List,
    NoEvict,
    NoTouch,
    Pause,
    Reply,
    Setinfo,
    Setname,
    Tracking,
    Trackinginfo,
    Unblock,
    Unpause,
}

/// How long a blocking command waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Its last argument, in seconds with fractions; 0 is for ever.
    LastSeconds,
    /// Its first argument, likewise.
    FirstSeconds,
    /// Not known: a command that is new to the proxy.
    Unknown,
}

/// The treatment of a row.
pub fn of(spec: &Spec) -> Treatment {
    by_name(&spec.name).unwrap_or_else(|| by_tips(spec))
}

fn by_name(name: &str) -> Option<Treatment> {
    if let Some(sub) = name.strip_prefix("client|") {
        return client(sub).map(|sub| Treatment::Local(Local::Client(sub)));
    }
    if let Some(local) = local(name) {
        return Some(Treatment::Local(local));
    }
    Some(match name {
        "keys" => Treatment::KeysPattern,
        "scan" => Treatment::Scan,
        "randomkey" => Treatment::Primaries(MergeRule::RandomKey),
        "info" => Treatment::Primaries(MergeRule::Info),
        "cluster|countkeysinslot" | "cluster|getkeysinslot" => Treatment::SlotNumber,
        "publish" | "pubsub|channels" | "pubsub|numpat" | "pubsub|numsub" => Treatment::PubSub,
        "pubsub|shardchannels" => Treatment::Primaries(MergeRule::Concat),
        "pubsub|shardnumsub" => Treatment::Primaries(MergeRule::SumByName),
        "xread" | "xreadgroup" => Treatment::BlockingStreams,
        "blpop" | "brpop" | "bzpopmin" | "bzpopmax" | "blmove" | "brpoplpush" => {
            Treatment::Blocking(Timeout::LastSeconds)
        }
        "blmpop" | "bzmpop" => Treatment::Blocking(Timeout::FirstSeconds),
        "config|set" => Treatment::ConfigSet,
        "config|resetstat" | "config|rewrite" | "bgsave" | "bgrewriteaof" => {
            Treatment::Primaries(MergeRule::AllSucceeded)
        }
        "acl|setuser" | "acl|deluser" | "acl|load" | "acl|save" => Treatment::Primaries(MergeRule::AllSucceeded),
        "debug" => Treatment::Debug,
        "eval" | "eval_ro" => Treatment::Scripting(Scripting::Eval),
        "evalsha" | "evalsha_ro" => Treatment::Scripting(Scripting::Evalsha),
        "fcall" | "fcall_ro" => Treatment::Scripting(Scripting::Fcall),
        "script|load" => Treatment::Scripting(Scripting::Load),
        "script|exists" => Treatment::Scripting(Scripting::Exists),
        "script|show" => Treatment::Scripting(Scripting::Show),
        "script|flush" => Treatment::Scripting(Scripting::Flush),
        "script|kill" | "function|kill" => Treatment::OutOfBand(MergeRule::OneSucceeded),
        "function|stats" => Treatment::OutOfBand(MergeRule::Fullest),
        // Redis calls MSETNX multi-shard, but then it is not one act any more.
        "msetnx" => Treatment::Keyed,
        "slowlog|get" | "commandlog|get" => Treatment::Primaries(MergeRule::Newest(10)),
        "slowlog|len" | "commandlog|len" => Treatment::Primaries(MergeRule::Entries),
        "latency|reset" => Treatment::Primaries(MergeRule::Max),
        "latency|history" => Treatment::Primaries(MergeRule::ByTime),
        "latency|latest" => Treatment::Primaries(MergeRule::Latest),
        "latency|histogram" => Treatment::Primaries(MergeRule::Histogram),
        "latency|graph" => Treatment::Primaries(MergeRule::OneSucceeded),
        "memory|stats" => Treatment::Primaries(MergeRule::Memory),
        "lastsave" => Treatment::Primaries(MergeRule::Min),
        "acl|log" => Treatment::AclLog,
        "config|get" => Treatment::AnyRewritten(MergeRule::Config),
        "role" => Treatment::AnyRewritten(MergeRule::Role),
        _ => return name.strip_prefix("cluster|").and_then(cluster_view).map(Treatment::ClusterView),
    })
}

fn cluster_view(sub: &str) -> Option<ClusterView> {
    Some(match sub {
        "slots" => ClusterView::Slots,
        "shards" => ClusterView::Shards,
        "nodes" => ClusterView::Nodes,
        "info" => ClusterView::Info,
        "myid" | "myshardid" => ClusterView::Id,
        "links" => ClusterView::Links,
        "replicas" | "slaves" => ClusterView::Replicas,
        "count-failure-reports" => ClusterView::FailureReports,
        _ if refused::CLUSTER_VIEWS.contains(&sub) => ClusterView::Other,
        _ => return None,
    })
}

fn local(name: &str) -> Option<Local> {
    Some(match name {
        "ping" => Local::Ping,
        "echo" => Local::Echo,
        "hello" => Local::Hello,
        "auth" => Local::Auth,
        "select" => Local::Select,
        "quit" => Local::Quit,
        "reset" => Local::Reset,
        "readonly" => Local::Readonly,
        "readwrite" => Local::Readwrite,
        "asking" => Local::Asking,
        "multi" => Local::Multi,
        "exec" => Local::Exec,
        "discard" => Local::Discard,
        "watch" => Local::Watch,
        "unwatch" => Local::Unwatch,
        "subscribe" => Local::Subscribe,
        "psubscribe" => Local::Psubscribe,
        "ssubscribe" => Local::Ssubscribe,
        "unsubscribe" => Local::Unsubscribe,
        "punsubscribe" => Local::Punsubscribe,
        "sunsubscribe" => Local::Sunsubscribe,
        "monitor" => Local::Monitor,
        "wait" => Local::Wait,
        "waitaof" => Local::Waitaof,
        "cluster|keyslot" => Local::ClusterKeyslot,
        "acl|whoami" => Local::AclWhoami,
        "proxy" => Local::Proxy(ProxyCommand::Unknown),
        "proxy|clients" => Local::Proxy(ProxyCommand::Clients),
        "proxy|config" => Local::Proxy(ProxyCommand::Config),
        "proxy|events" => Local::Proxy(ProxyCommand::Events),
        "proxy|hotkeys" => Local::Proxy(ProxyCommand::Hotkeys),
        "proxy|slots" => Local::Proxy(ProxyCommand::Slots),
        "proxy|slowlog" => Local::Proxy(ProxyCommand::Slowlog),
        "proxy|databases" => Local::Proxy(ProxyCommand::Databases),
        "proxy|explain" => Local::Proxy(ProxyCommand::Explain),
        "proxy|help" => Local::Proxy(ProxyCommand::Help),
        "proxy|info" => Local::Proxy(ProxyCommand::Info),
        "proxy|node" => Local::Proxy(ProxyCommand::Node),
        "proxy|nodes" => Local::Proxy(ProxyCommand::Nodes),
        "proxy|reads" => Local::Proxy(ProxyCommand::Reads),
        "proxy|reload" => Local::Proxy(ProxyCommand::Reload),
        _ => return None,
    })
}

pub(super) fn client(sub: &str) -> Option<ClientCommand> {
    Some(match sub {
        "caching" => ClientCommand::Caching,
        "capa" => ClientCommand::Capa,
        "getname" => ClientCommand::Getname,
        "getredir" => ClientCommand::Getredir,
        "id" => ClientCommand::Id,
        "import-source" => ClientCommand::ImportSource,
        "info" => ClientCommand::Info,
        "kill" => ClientCommand::Kill,
        "list" => ClientCommand::List,
        "no-evict" => ClientCommand::NoEvict,
        "no-touch" => ClientCommand::NoTouch,
        "pause" => ClientCommand::Pause,
        "reply" => ClientCommand::Reply,
        "setinfo" => ClientCommand::Setinfo,
        "setname" => ClientCommand::Setname,
        "tracking" => ClientCommand::Tracking,
        "trackinginfo" => ClientCommand::Trackinginfo,
        "unblock" => ClientCommand::Unblock,
        "unpause" => ClientCommand::Unpause,
        _ => return None,
    })
}

fn by_tips(spec: &Spec) -> Treatment {
    let rule = match spec.response_policy {
        ResponsePolicy::OneSucceeded => MergeRule::OneSucceeded,
        ResponsePolicy::AllSucceeded => MergeRule::AllSucceeded,
        ResponsePolicy::And => MergeRule::And,
        ResponsePolicy::Or => MergeRule::Or,
        ResponsePolicy::Min => MergeRule::Min,
        ResponsePolicy::Max => MergeRule::Max,
        ResponsePolicy::Sum => MergeRule::Sum,
        ResponsePolicy::Special => MergeRule::Fullest,
        ResponsePolicy::None => MergeRule::Concat,
    };
    match spec.request_policy {
        // A number of keys has to be written anew in each part, which is known to be right for MSETEX only.
        RequestPolicy::MultiShard if spec.count_at().is_none() || &*spec.name == "msetex" => {
            Treatment::Split(if spec.response_policy == ResponsePolicy::None { MergeRule::KeyOrder } else { rule })
        }
        RequestPolicy::AllNodes | RequestPolicy::AllShards if !spec.has_keys() => Treatment::Primaries(rule),
        _ if spec.flags.has(super::Flags::BLOCKING) => Treatment::Blocking(Timeout::Unknown),
        _ => Treatment::Keyed,
    }
}

/// Whether a command is about what a node is, and not what it holds: replication does not bring that to replicas.
pub fn concerns_replicas(name: &str) -> bool {
    matches!(name, "config|set" | "config|rewrite" | "acl|setuser" | "acl|deluser" | "acl|load" | "acl|save")
}
