//! What a server's `COMMAND` says of a command: its flags, where its keys are, and its tips.

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
    pub(super) fn is_open(&self) -> bool {
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

/// A tip of `COMMAND`: one of these, by the server's names. What is not known is `Special`, which is left to the server.
macro_rules! tip {
    ($(#[$doc:meta])* $name:ident: $(#[$none_doc:meta])* None, $($(#[$value_doc:meta])* $value:ident = $text:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            $(#[$none_doc])*
            #[default]
            None,
            $($(#[$value_doc])* $value,)*
        }

        impl $name {
            /// What the server calls `name`; none where that is empty.
            pub fn named(name: &str) -> $name {
                match name {
                    "" => $name::None,
                    $($text => $name::$value,)*
                    _ => $name::Special,
                }
            }

            /// The server's name; empty for none.
            pub fn name(self) -> &'static str {
                match self {
                    $name::None => "",
                    $($name::$value => $text,)*
                }
            }
        }
    };
}

tip! {
    /// Which nodes to ask (`request_policy`).
    RequestPolicy:
    /// The keys' slot; any primary where there are none.
    None,
    /// Primaries and replicas.
    AllNodes = "all_nodes",
    /// Every primary.
    AllShards = "all_shards",
    /// The owners of the keys' slots.
    MultiShard = "multi_shard",
    /// None of these.
    Special = "special",
}

tip! {
    /// How to make one reply of several (`response_policy`).
    ResponsePolicy:
    /// Put together, or into the order of the keys.
    None,
    /// One that is no error.
    OneSucceeded = "one_succeeded",
    /// Any, unless one is an error.
    AllSucceeded = "all_succeeded",
    /// Logical and of integers.
    And = "agg_logical_and",
    /// Logical or of integers.
    Or = "agg_logical_or",
    /// The least.
    Min = "agg_min",
    /// The greatest.
    Max = "agg_max",
    /// The sum.
    Sum = "agg_sum",
    /// None of these.
    Special = "special",
}
