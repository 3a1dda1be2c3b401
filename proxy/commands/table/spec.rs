//! A command's row: what the server says of it, and what becomes of it here.

use super::{
    access::{self, Varies},
    busy::{self, WhenBusy},
    command_info::{Flags, KeySpec, RequestPolicy, ResponsePolicy},
    in_database::{self, InDatabase, ReplyKeys},
    keys::Finder,
    lost::{self, WhenLost},
    refused, replies,
    secrets::{self, Secrets},
    sender::{self, Sender},
    traits::{self, Traits},
    treatment::{self, Local, MergeRule, Treatment},
};
use crate::metrics::{CommandClass, CommandId};

/// A command, or one subcommand of a container (`config|get`).
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The name in lower case, a subcommand's as `config|get`.
    pub name: Box<str>,
    /// How many arguments it takes, the name included; negative where that is the least.
    pub arity: i32,
    /// The server's flags.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Box<[KeySpec]>,
    /// The tip on which nodes to ask.
    pub request_policy: RequestPolicy,
    /// The tip on how to make one reply of several.
    pub response_policy: ResponsePolicy,
    /// What it is counted as.
    pub metric: CommandId,
    /// The class under which its duration is recorded.
    pub class: CommandClass,
    /// What becomes of it, by its name and tips.
    pub treatment: Treatment,
    /// Why it is refused unless the configuration allows it.
    pub refused: Option<&'static str>,
    /// What becomes of it while a primary is lost.
    pub when_lost: WhenLost,
    /// What becomes of it while a primary is busy with a script.
    pub when_busy: WhenBusy,
    /// Who makes nodes run it.
    pub sender: Sender,
    /// Which of its arguments nobody is shown.
    pub secrets: Secrets,
    /// What sessions have to know of it besides.
    pub traits: Traits,
    /// Replicas get it too: each may be the next primary.
    pub replicas_too: bool,
    /// With how many arguments, the name included, its reply may be as long as what is stored; `None`: it never is.
    pub long_from: Option<usize>,
    /// What becomes of it in a database of its own.
    pub in_database: InDatabase,
    /// Where its replies name keys.
    pub reply_keys: ReplyKeys,
    /// Whether it has subcommands.
    pub container: bool,
    /// The server's ACL categories of it, set apart by commas: `read,string,fast`.
    pub categories: Box<str>,
    /// What it may do with its keys where that depends on its arguments.
    pub(super) varies: Varies,
    /// The servers know it by another name only (`rename-command`).
    pub(super) is_renamed: bool,
    /// Its place in its table.
    pub(super) place: u16,
    /// How its keys are found.
    pub(super) finder: Finder,
}

impl Spec {
    /// A row, its treatment decided by name and tips.
    pub fn new(
        name: &str,
        arity: i32,
        flags: Flags,
        keys: Vec<KeySpec>,
        request_policy: RequestPolicy,
        response_policy: ResponsePolicy,
        container: bool,
    ) -> Spec {
        let name = name.to_ascii_lowercase().into_boxed_str();
        let finder = Finder::of(&name, flags, &keys);
        let mut spec = Spec {
            metric: CommandId::of(&name),
            class: class_of(flags),
            name,
            arity,
            flags,
            keys: keys.into_boxed_slice(),
            request_policy,
            response_policy,
            treatment: Treatment::Keyed,
            refused: None,
            when_lost: WhenLost::Keys,
            when_busy: WhenBusy::Says,
            secrets: Secrets::None,
            sender: Sender::Clients,
            traits: Traits::default(),
            replicas_too: false,
            long_from: None,
            in_database: InDatabase::AsItCame,
            reply_keys: ReplyKeys::Nothing,
            container,
            categories: Box::default(),
            varies: Varies::No,
            is_renamed: false,
            place: 0,
            finder,
        };
        spec.varies = access::of(&spec.name);
        spec.treatment = treatment::of(&spec);
        spec.when_lost = lost::of(&spec);
        spec.when_busy = busy::of(&spec);
        spec.secrets = secrets::of(&spec.name);
        spec.sender = sender::of(&spec);
        spec.traits = traits::of(&spec);
        spec.refused = refused::why(&spec.name);
        spec.long_from = replies::long_from(&spec);
        spec.replicas_too = treatment::concerns_replicas(&spec.name);
        (spec.in_database, spec.reply_keys) = in_database::of(&spec);
        spec
    }

    /// Whether so many arguments, the name included, are what the command takes.
    pub fn takes(&self, count: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { count >= arity } else { count == arity }
    }

    /// Whether the servers know it by the name that a client has said: its own, unless they have renamed it, or another.
    pub fn goes_by(&self, name: &[u8]) -> bool {
        !self.is_renamed || !self.name.as_bytes().eq_ignore_ascii_case(name)
    }

    /// Its place in its table: no other row there has it.
    pub fn place(&self) -> usize {
        usize::from(self.place)
    }

    /// Whether the server counts it among these commands (`ACL CAT`).
    pub fn is_in_category(&self, name: &str) -> bool {
        self.categories.split(',').any(|own| own == name)
    }

    /// Whether it is the proxy's own, which no server has.
    pub fn is_own(&self) -> bool {
        matches!(self.treatment, Treatment::Local(Local::Proxy(_)))
    }

    /// Whether it changes nothing, so that it may be sent twice.
    pub fn is_readonly(&self) -> bool {
        self.flags.has(Flags::READONLY)
    }

    /// Whether it only reads, and one key alone, whose place among its arguments does not depend on them.
    pub fn reads_one_key(&self) -> bool {
        self.is_readonly() && self.only_key().is_some()
    }

    /// Whether it only reads, and tells of each of its keys by itself.
    pub fn reads_key_by_key(&self) -> bool {
        let is_split = matches!(self.treatment, Treatment::Split(MergeRule::KeyOrder | MergeRule::Sum));
        is_split && self.is_readonly() && !self.traits.touches
    }

    /// Whether its reply to a request of so many arguments may be as long as what is stored.
    pub fn may_reply_at_length(&self, count: usize) -> bool {
        self.long_from.is_some_and(|least| count >= least)
    }

    /// Whether it may write; what is not known as a read is a write.
    pub fn is_write(&self) -> bool {
        self.flags.has(Flags::WRITE)
    }
}

fn class_of(flags: Flags) -> CommandClass {
    if flags.has(Flags::BLOCKING) {
        CommandClass::Blocking
    } else if flags.has(Flags::READONLY) {
        CommandClass::Read
    } else if flags.has(Flags::WRITE) {
        CommandClass::Write
    } else {
        CommandClass::Admin
    }
}
