//! What becomes of a command about all nodes while one of them is lost: a column of its row.
//!
//! The rule: where a true answer, or one that becomes true by itself, can be given without the lost node, it is given at once;
//! else the error names the node, and comes as fast as that of a key there.

use super::{
    spec::Spec,
    treatment::{ClientCommand, Local, MergeRule, Scripting, Treatment},
};

/// What becomes of a command while a primary is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenLost {
    /// The command is about keys: the lost node costs those in its own slots only.
    #[default]
    Keys,
    /// The answer must be of all primaries: an error names the lost one.
    Fails,
    /// Another primary answers as well.
    Another,
    /// The others answer: what a lost node has of it is gone with its process, or is told by the next look.
    Others,
    /// The others answer, unless none of them has what was asked for: the lost one may have it.
    OthersThatHave,
    /// Done at the others; the proxy keeps it and gives it to a node that lacks it.
    Kept,
    /// Done at the others, and at the lost one as soon as that is back.
    MadeUp,
    /// The others are heard at once, and the lost one as soon as it is back.
    Joins,
}

impl WhenLost {
    /// For people; `None` where it goes without saying.
    pub fn words(self) -> Option<&'static str> {
        Some(match self {
            WhenLost::Keys | WhenLost::Another => return None,
            WhenLost::Fails => "an error that names it, as for a key there",
            WhenLost::Others => "the others answer",
            WhenLost::OthersThatHave => "the others answer; an error that names it where none of them has one",
            WhenLost::Kept => "done at the others; the proxy keeps it for whoever lacks it",
            WhenLost::MadeUp => "done at the others, and there when it is back",
            WhenLost::Joins => "the others are heard at once, and it when it is back",
        })
    }

    /// Whether nobody waits for a lost node, as long as the others' answers suffice.
    pub fn is_spared(self) -> bool {
        matches!(self, WhenLost::Others | WhenLost::OthersThatHave | WhenLost::Kept | WhenLost::MadeUp)
    }
}

/// The column of a row.
pub fn of(spec: &Spec) -> WhenLost {
    match spec.treatment {
        Treatment::Keyed if !spec.has_keys() => WhenLost::Another,
        Treatment::Keyed | Treatment::Split(_) | Treatment::SlotNumber => WhenLost::Keys,
        Treatment::Blocking(_) | Treatment::BlockingStreams => WhenLost::Keys,
        Treatment::Primaries(MergeRule::RandomKey | MergeRule::OneSucceeded) => WhenLost::OthersThatHave,
        Treatment::Primaries(_) => of_primaries(&spec.name),
        Treatment::KeysPattern | Treatment::Scan | Treatment::ConfigSet => WhenLost::Fails,
        Treatment::Scripting(Scripting::Load) => WhenLost::Kept,
        Treatment::Scripting(Scripting::Exists) => WhenLost::Others,
        Treatment::Scripting(Scripting::Flush) => WhenLost::MadeUp,
        Treatment::Scripting(Scripting::Show) => WhenLost::Another,
        Treatment::Scripting(Scripting::Eval | Scripting::Evalsha | Scripting::Fcall) => WhenLost::Keys,
        // A node may be lost because it runs what is to be ended.
        Treatment::OutOfBand(MergeRule::OneSucceeded) => WhenLost::OthersThatHave,
        Treatment::OutOfBand(_) | Treatment::AclLog => WhenLost::Others,
        Treatment::Local(Local::Monitor | Local::Subscribe | Local::Psubscribe) => WhenLost::Joins,
        Treatment::Local(Local::Client(ClientCommand::Tracking)) => WhenLost::Joins,
        Treatment::Local(_) | Treatment::PubSub | Treatment::Debug => WhenLost::Keys,
        Treatment::AnyRewritten(_) | Treatment::ClusterView(_) => WhenLost::Another,
    }
}

/// Of what goes to every primary: reports of what a process has seen or holds in memory do without a lost one; what is
/// about keys, or changes what outlives a process, does not.
fn of_primaries(name: &str) -> WhenLost {
    match name {
        "config|resetstat" | "slowlog|reset" | "commandlog|reset" | "latency|reset" | "memory|purge" => {
            WhenLost::MadeUp
        }
        "info" | "memory|stats" | "memory|malloc-stats" | "memory|doctor" | "slowlog|get" | "slowlog|len" => {
            WhenLost::Others
        }
        "commandlog|get" | "commandlog|len" | "pubsub|shardchannels" | "pubsub|shardnumsub" => WhenLost::Others,
        _ if name.starts_with("latency|") => WhenLost::Others,
        _ => WhenLost::Fails,
    }
}
