//! Which command is treated how: decided once per row, by the server's tips, and by name where tips say nothing or not enough.

use super::{
    super::{
        command_info::{Flags, RequestPolicy, ResponsePolicy},
        refused,
        spec::Spec,
    },
    ClientCommand, ClusterView, Local, MergeRule, ProxyCommand, Scripting, Timeout, Treatment,
};

/// The treatment of a row.
pub(in crate::commands::table) fn of(spec: &Spec) -> Treatment {
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

pub(in crate::commands::table) fn client(sub: &str) -> Option<ClientCommand> {
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
        RequestPolicy::None
        | RequestPolicy::AllNodes
        | RequestPolicy::AllShards
        | RequestPolicy::MultiShard
        | RequestPolicy::Special => {
            if spec.flags.has(Flags::BLOCKING) {
                Treatment::Blocking(Timeout::Unknown)
            } else {
                Treatment::Keyed
            }
        }
    }
}

/// Whether a command is about what a node is, and not what it holds: replication does not bring that to replicas.
pub(in crate::commands::table) fn concerns_replicas(name: &str) -> bool {
    matches!(name, "config|set" | "config|rewrite" | "acl|setuser" | "acl|deluser" | "acl|load" | "acl|save")
}
