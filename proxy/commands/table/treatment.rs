//! What a command means for a proxy in front of many nodes.

mod of_command;

pub(super) use self::of_command::{client, concerns_replicas, of};

pub use super::merge_rule::MergeRule;

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
