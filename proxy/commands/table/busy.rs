//! What becomes of a command about all nodes while one of them is busy with a script: a column of its row.
//!
//! The rule: what changes all nodes is done at all of them or at none. They are asked first whether they listen; what only
//! reads is as each node says.

use super::{
    spec::Spec,
    treatment::{MergeRule, Scripting, Treatment},
};

/// What becomes of a command while a primary is busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenBusy {
    /// The busy node says BUSY of its part, and so does the whole.
    #[default]
    Says,
    /// Nothing is done anywhere.
    Nothing,
    /// Nothing is done anywhere; where a node gets busy in that very moment, it is made like the others when it listens
    /// again.
    Alike,
}

impl WhenBusy {
    /// For people; `None` where it goes without saying.
    pub fn words(self) -> Option<&'static str> {
        Some(match self {
            WhenBusy::Says => return None,
            WhenBusy::Nothing => "BUSY, and nothing is done anywhere",
            WhenBusy::Alike => {
                "BUSY, and nothing is done anywhere; a node that gets busy just then is made like the others"
            }
        })
    }

    /// Whether all nodes are asked first.
    pub fn asks_first(self) -> bool {
        self != WhenBusy::Says
    }
}

/// The column of a row.
pub fn of(spec: &Spec) -> WhenBusy {
    match spec.treatment {
        Treatment::Primaries(_) if changes_functions(&spec.name) => WhenBusy::Alike,
        // Whoever only has to succeed everywhere changes something: of what is read, something is put together.
        Treatment::Primaries(MergeRule::AllSucceeded) | Treatment::ConfigSet | Treatment::Debug => WhenBusy::Nothing,
        Treatment::Primaries(_) if &*spec.name == "latency|reset" => WhenBusy::Nothing,
        // ACL LOG RESET.
        Treatment::AclLog | Treatment::Scripting(Scripting::Flush) => WhenBusy::Nothing,
        // A script that is loaded at some nodes only is given to the others when they are to run it.
        Treatment::Scripting(_) => WhenBusy::Says,
        Treatment::Keyed | Treatment::Split(_) | Treatment::Primaries(_) | Treatment::KeysPattern => WhenBusy::Says,
        Treatment::Scan | Treatment::SlotNumber | Treatment::PubSub | Treatment::Local(_) => WhenBusy::Says,
        Treatment::Blocking(_) | Treatment::BlockingStreams | Treatment::OutOfBand(_) => WhenBusy::Says,
        Treatment::AnyRewritten(_) | Treatment::ClusterView(_) => WhenBusy::Says,
    }
}

fn changes_functions(name: &str) -> bool {
    matches!(name, "function|load" | "function|delete" | "function|flush" | "function|restore")
}
