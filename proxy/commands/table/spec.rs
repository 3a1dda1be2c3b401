//! A command's row: what the server says of it, and what becomes of it here.

use super::{
    access::{self, Varies},
    busy::{self, WhenBusy},
    in_database::{self, InDatabase, ReplyKeys},
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
    /// Its place in its table.
    pub(super) place: u16,
    /// How its keys are found.
    pub(super) finder: Finder,
}

/// How the keys of a command are found; decided once, when its row is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finder {
    /// The command has no keys.
    None,
    /// Exactly one key, at this index.
    At(u8),
    /// By its key specs.
    Specs,
    /// `SORT key ... STORE key`, the last STORE counts.
    Sort,
    /// `GEORADIUS key ... STORE key`, likewise.
    Georadius,
    /// `XREAD ... STREAMS key... id...`.
    Streams,
    /// `MIGRATE host port key|"" ... KEYS key...`.
    Migrate,
    /// Only the server knows.
    Server,
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

    /// Where its keys are, as the prologue of scripts reads it; `None` where that takes more than places.
    pub fn rule_of_keys(&self) -> Option<String> {
        let rule = |spec: &KeySpec| match (&spec.begin, spec.find) {
            (Begin::Index(begin), Find::Range { last, step, limit: 0 | 1 }) => {
                Some(format!("{begin}:{last}:{}", step.max(1)))
            }
            (Begin::Index(begin), Find::Count { count_at, first, step }) => {
                Some(format!("{begin}#{count_at}:{first}:{}", step.max(1)))
            }
            _ => None,
        };
        match self.finder {
            Finder::Georadius => Some("g".to_owned()),
            Finder::At(_) | Finder::Specs => {
                self.keys.iter().map(rule).collect::<Option<Vec<_>>>().map(|all| all.join(";"))
            }
            _ => None,
        }
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

impl Finder {
    fn of(name: &str, flags: Flags, keys: &[KeySpec]) -> Finder {
        match name {
            "sort" | "sort_ro" => return Finder::Sort,
            "georadius" | "georadiusbymember" => return Finder::Georadius,
            "xread" | "xreadgroup" => return Finder::Streams,
            "migrate" => return Finder::Migrate,
            _ => {}
        }
        if keys.iter().any(KeySpec::is_open) {
            return Finder::Server;
        }
        match keys {
            [] if flags.has(Flags::MOVABLE_KEYS) => Finder::Server,
            [] => Finder::None,
            [KeySpec { begin: Begin::Index(at), find: Find::Range { last: 0, .. }, .. }] => {
                u8::try_from(*at).map_or(Finder::Specs, Finder::At)
            }
            _ => Finder::Specs,
        }
    }
}

/// Where some of a command's keys are (the key specifications of Redis 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Where to begin.
    pub begin: Begin,
    /// Which arguments from there on are keys.
    pub find: Find,
    /// What the command does with them.
    pub flags: KeyFlags,
}

impl KeySpec {
    /// Whether the spec does not tell all keys, so that only the server can.
    fn is_open(&self) -> bool {
        self.begin == Begin::Unknown || self.find == Find::Unknown || self.flags.has(KeyFlags::INCOMPLETE)
    }
}

/// Where the search for keys begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this argument.
    Index(u32),
    /// Behind this word, looked for from an argument on; backwards from the end where `from` is negative.
    Keyword {
        /// The word, in any case.
        word: Box<str>,
        /// Where to start looking.
        from: i32,
    },
    /// The server does not say.
    Unknown,
}

/// Which arguments are keys, seen from where the search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// Every `step`-th argument up to `last`.
    Range {
        /// The last key, from the beginning; negative: from the end.
        last: i32,
        /// How many arguments from key to key.
        step: u32,
        /// Where `last` is -1: keys are only in the first n-th part of what is left; 0 and 1: in all of it.
        limit: u32,
    },
    /// As many as an argument says.
    Count {
        /// The argument that says how many.
        count_at: u32,
        /// The first key.
        first: u32,
        /// How many arguments from key to key.
        step: u32,
    },
    /// The server does not say.
    Unknown,
}

/// A small set of named bits.
macro_rules! bits {
    ($(#[$doc:meta])* $name:ident: $($(#[$bit_doc:meta])* $bit:ident = $place:literal $text:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(u32);

        impl $name {
            $($(#[$bit_doc])* pub const $bit: $name = $name(1 << $place);)*
            const NAMES: &[(&str, $name)] = &[$(($text, $name::$bit)),*];

            /// Whether all of `others` are set.
            pub fn has(self, others: $name) -> bool {
                self.0 & others.0 == others.0
            }

            /// Sets the bit that the server calls `name`; names not known here are passed over.
            pub fn set_named(&mut self, name: &str) {
                if let Some((_, bit)) = Self::NAMES.iter().find(|(known, _)| *known == name) {
                    self.0 |= bit.0;
                }
            }

            /// The server's names of what is set.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::NAMES.iter().filter(move |(_, bit)| self.has(*bit)).map(|(name, _)| *name)
            }
        }
    };
}

bits! {
    /// A command's flags, as `COMMAND` names them.
    Flags:
    /// The command changes nothing.
    READONLY = 0 "readonly",
    /// The command may change something.
    WRITE = 1 "write",
    /// The command may wait for something to happen.
    BLOCKING = 2 "blocking",
    /// Scripts may not call it.
    NOSCRIPT = 3 "noscript",
    /// Its keys are not where first, last and step say.
    MOVABLE_KEYS = 4 "movablekeys",
    /// The command is about publishing and subscribing.
    PUBSUB = 5 "pubsub",
    /// The command is for administration.
    ADMIN = 6 "admin",
    /// The command is served while data is being loaded.
    LOADING = 7 "loading",
    /// The command is served by a replica that lost its primary.
    STALE = 8 "stale",
    /// The command takes constant or logarithmic time.
    FAST = 9 "fast",
    /// The command is refused when memory is full.
    DENY_OOM = 10 "denyoom",
    /// The command can do without keys.
    NO_MANDATORY_KEYS = 11 "no_mandatory_keys",
    /// The command is not allowed in a transaction.
    NO_MULTI = 12 "no_multi",
    /// The command is allowed before authentication.
    NO_AUTH = 13 "no_auth",
    /// The command is allowed while a script runs for too long.
    ALLOW_BUSY = 14 "allow_busy",
    /// MONITOR does not show it.
    SKIP_MONITOR = 15 "skip_monitor",
}

bits! {
    /// What a command does with keys, as `COMMAND` names it.
    KeyFlags:
    /// The command reads the value only.
    READ = 0 "RO",
    /// The command reads and changes the value.
    READ_WRITE = 1 "RW",
    /// The command overwrites the value.
    OVERWRITE = 2 "OW",
    /// The command removes the key.
    REMOVE = 3 "RM",
    /// The argument is no key, but goes by slot like one (the channel of SPUBLISH).
    NOT_KEY = 4 "not_key",
    /// There may be keys that the spec does not tell.
    INCOMPLETE = 5 "incomplete",
    /// What it does depends on its arguments.
    VARIABLE = 6 "variable_flags",
    /// The command tells of the value, or copies it.
    ACCESS = 7 "access",
    /// The command changes the value.
    UPDATE = 8 "update",
    /// The command adds to what is there.
    INSERT = 9 "insert",
    /// The command deletes some of the value, on purpose.
    DELETE = 10 "delete",
}

/// Which nodes to ask (`request_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestPolicy {
    /// The keys' slot; any primary where there are none.
    #[default]
    None,
    /// Primaries and replicas.
    AllNodes,
    /// Every primary.
    AllShards,
    /// The owners of the keys' slots.
    MultiShard,
    /// None of these.
    Special,
}

/// How to make one reply of several (`response_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponsePolicy {
    /// Put together, or into the order of the keys.
    #[default]
    None,
    /// One that is no error.
    OneSucceeded,
    /// Any, unless one is an error.
    AllSucceeded,
    /// Logical and of integers.
    And,
    /// Logical or of integers.
    Or,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The sum.
    Sum,
    /// None of these.
    Special,
}

impl RequestPolicy {
    const NAMES: &[(&str, RequestPolicy)] = &[
        ("all_nodes", RequestPolicy::AllNodes),
        ("all_shards", RequestPolicy::AllShards),
        ("multi_shard", RequestPolicy::MultiShard),
        ("special", RequestPolicy::Special),
    ];

    /// The policy of this name; what is not known is left to the server.
    pub fn named(name: &str) -> RequestPolicy {
        Self::NAMES.iter().find(|(known, _)| *known == name).map_or(RequestPolicy::Special, |(_, policy)| *policy)
    }

    /// Its name, empty for none.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, policy)| *policy == self).map_or("", |(name, _)| name)
    }
}

impl ResponsePolicy {
    const NAMES: &[(&str, ResponsePolicy)] = &[
        ("one_succeeded", ResponsePolicy::OneSucceeded),
        ("all_succeeded", ResponsePolicy::AllSucceeded),
        ("agg_logical_and", ResponsePolicy::And),
        ("agg_logical_or", ResponsePolicy::Or),
        ("agg_min", ResponsePolicy::Min),
        ("agg_max", ResponsePolicy::Max),
        ("agg_sum", ResponsePolicy::Sum),
        ("special", ResponsePolicy::Special),
    ];

    /// The policy of this name.
    pub fn named(name: &str) -> ResponsePolicy {
        Self::NAMES.iter().find(|(known, _)| *known == name).map_or(ResponsePolicy::Special, |(_, policy)| *policy)
    }

    /// Its name, empty for none.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, policy)| *policy == self).map_or("", |(name, _)| name)
    }
}
