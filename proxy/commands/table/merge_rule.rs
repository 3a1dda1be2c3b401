//! How several replies become one: the rules. [`crate::commands::merge::Merge`] applies them.

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

    /// What is to be known of it besides, before and while replies come.
    pub fn traits(self) -> MergeTraits {
        let plain = MergeTraits::default();
        match self {
            MergeRule::RandomKey => MergeTraits { enough: Enough::NotNull, ..plain },
            MergeRule::OneSucceeded => MergeTraits { enough: Enough::NoError, ..plain },
            MergeRule::Info => MergeTraits { facts: OwnFacts::Info, calls: CallsOf::AllCommands, ..plain },
            MergeRule::Config => MergeTraits { facts: OwnFacts::Config, ..plain },
            MergeRule::Newest(_) => MergeTraits { entries: Entries::Newest, calls: CallsOf::AllCommands, ..plain },
            MergeRule::Entries => MergeTraits { entries: Entries::Count, calls: CallsOf::AllCommands, ..plain },
            MergeRule::Histogram => MergeTraits { calls: CallsOf::NamedCommands, ..plain },
            MergeRule::Sum | MergeRule::AllSucceeded | MergeRule::KeyOrder | MergeRule::Concat => plain,
            MergeRule::And | MergeRule::Or | MergeRule::Min | MergeRule::Max | MergeRule::Digest => plain,
            MergeRule::Fullest | MergeRule::SumByName | MergeRule::Role | MergeRule::Memory => plain,
            MergeRule::Latest | MergeRule::ByTime | MergeRule::Youngest(_) => plain,
        }
    }
}

/// What distinguishes a rule besides how it merges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeTraits {
    /// Which one reply is enough, where lost nodes are spared.
    pub enough: Enough,
    /// What the proxy knows better than its nodes.
    pub facts: OwnFacts,
    /// Whose calls the replies tell of: clients asked for other calls than nodes have seen.
    pub calls: CallsOf,
    /// Which entries of a log the client wants: nodes are asked for all, since some may not be clients' doing.
    pub entries: Entries,
}

/// Which one reply is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enough {
    /// Any.
    #[default]
    Any,
    /// One that is not null.
    NotNull,
    /// One that is no error.
    NoError,
}

/// What the proxy knows better than its nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnFacts {
    /// Nothing.
    #[default]
    Nothing,
    /// What INFO says of a server and its clients.
    Info,
    /// The settings that hold for the proxy.
    Config,
}

/// Whose calls replies tell of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallsOf {
    /// Nobody's.
    #[default]
    Nobody,
    /// Those of all commands.
    AllCommands,
    /// Those of the commands that the request names, or of all.
    NamedCommands,
}

/// Which entries of SLOWLOG or COMMANDLOG are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entries {
    /// None: it is about no log.
    #[default]
    None,
    /// The newest.
    Newest,
    /// How many there are.
    Count,
}
