//! Names of what the proxy says: each error, warning and finding has one, and `deploy/troubleshooting.md` a paragraph for each.
//! A name stands at the end of its text, in parentheses, so that the error's class, at its start, is what clients know.
//!
//! What is said in Redis' own words has none.

use serde::{Serialize, Serializer};

/// The page with a paragraph for each name.
const PAGE: &str = include_str!("../../deploy/troubleshooting.md");
/// What every name begins with.
const PREFIX: &str = "SLOTWAY-";

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)+) => {
        /// The name of something that the proxy says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Name {
            $($(#[$doc])* $variant,)+
        }

        impl Name {
            /// All of them.
            pub const ALL: &[Name] = &[$(Name::$variant,)+];

            /// As it is written: `SLOTWAY-NODE-LOST`.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Name::$variant => concat!("SLOTWAY-", $text),)+
                }
            }
        }
    };
}

names! {
    // Replies: what became of the request.
    /// The connection was lost, and the request may have run.
    NodeLost = "NODE-LOST",
    /// The connection was lost, and the request has not run.
    NotSent = "NOT-SENT",
    /// No reply in time; the request may have run.
    NoAnswer = "NO-ANSWER",
    /// A node cannot be connected to.
    NodeUnreachable = "NODE-UNREACHABLE",
    /// A node does not let the proxy in.
    NodeRefuses = "NODE-REFUSES",
    /// No node serves the slot, or none can be asked.
    NotServed = "NOT-SERVED",
    /// A node cannot take more.
    NodeBehind = "NODE-BEHIND",
    /// A node has left, or given away what it was asked about.
    NodeLeft = "NODE-LEFT",
    /// Node after node names another.
    Redirects = "REDIRECTS",
    /// What was given up before may still run.
    InDoubt = "IN-DOUBT",
    /// A reply cannot be held.
    ReplyTooLarge = "REPLY-TOO-LARGE",
    /// A request cannot be sent so.
    RequestTooLong = "REQUEST-TOO-LONG",
    /// The proxy is full, and the client holds most.
    Evicted = "EVICTED",
    /// No more files can be opened.
    OpenFiles = "OPEN-FILES",
    /// Keys in several slots.
    CrossSlot = "CROSS-SLOT",
    /// A slot is half moved.
    HalfMoved = "HALF-MOVED",
    /// Done at some nodes, not at all.
    DoneInPart = "DONE-IN-PART",
    /// Replies that do not fit together.
    OddReplies = "ODD-REPLIES",
    /// Nobody answered.
    Dropped = "DROPPED",
    /// A command that is not served.
    Refused = "REFUSED",
    /// A command that is not served in a database of its own.
    RefusedInDatabase = "REFUSED-IN-DATABASE",
    /// A command that does not go with transactions.
    InTransaction = "IN-TRANSACTION",
    /// About others, from a user of the proxy's own.
    OtherUsers = "OTHER-USERS",
    /// Too many requests of a user.
    RateLimit = "RATE-LIMIT",
    /// Too many clients of a user.
    UserClients = "USER-CLIENTS",
    /// Rights that cannot be found out.
    Rights = "RIGHTS",
    /// A command that cannot be found out.
    UnknownName = "UNKNOWN-NAME",
    /// Replicas that cannot be counted.
    Wait = "WAIT",
    /// Functions are on their way to a node.
    Functions = "FUNCTIONS",
    /// A SCAN that cannot go on.
    Scan = "SCAN",
    /// PROXY with other words than it takes.
    Usage = "USAGE",
    /// PROXY NODE with a node that is none, or several.
    WhichNode = "WHICH-NODE",
    /// Plain text at a port of TLS.
    SpeaksTls = "SPEAKS-TLS",
    /// A configuration that is not taken.
    NotReloaded = "NOT-RELOADED",

    // At the start, and by `check`.
    /// A file that cannot be read, or is none.
    ConfigFile = "CONFIG-FILE",
    /// A key that does not exist.
    UnknownKey = "UNKNOWN-KEY",
    /// A value that is none.
    BadValue = "BAD-VALUE",
    /// Passwords that cannot be had.
    Password = "PASSWORD",
    /// Listeners at odds.
    Listener = "LISTENER",
    /// Whoever connects would be a user of the nodes.
    LentUser = "LENT-USER",
    /// A port is open to all.
    OpenPort = "OPEN-PORT",
    /// A database that cannot be.
    Database = "DATABASE",
    /// A user that cannot be.
    User = "USER",
    /// Files of TLS that are missing or of no use.
    TlsFiles = "TLS-FILES",
    /// Nodes' certificates that nobody checks.
    TlsUnchecked = "TLS-UNCHECKED",
    /// A certificate ends.
    CertificateEnds = "CERTIFICATE-ENDS",
    /// No seeds are named.
    NoSeeds = "NO-SEEDS",
    /// OpenTelemetry is asked for and not built in.
    NoOtlp = "NO-OTLP",
    /// A name in `deny` or `allow` that is no command's.
    StrangeCommand = "STRANGE-COMMAND",
    /// An address that cannot be listened on.
    Port = "PORT",
    /// What the system, or a running process, did not give.
    Start = "START",
    /// The proxy does not answer at its admin port.
    NoProxy = "NO-PROXY",
    /// The proxy answers and cannot serve.
    NotReady = "NOT-READY",
    /// What `dev` needs.
    Dev = "DEV",
    /// What `copy` cannot do.
    Copy = "COPY",

    // Of the cluster: by `doctor`, and in the log.
    /// A seed that leads nowhere.
    Seed = "SEED",
    /// Nodes that do not let us in.
    Login = "LOGIN",
    /// TLS that is not agreed on.
    Tls = "TLS",
    /// A server that is in no cluster, or no cluster at all.
    NoCluster = "NO-CLUSTER",
    /// A seed of another cluster.
    OtherCluster = "OTHER-CLUSTER",
    /// Addresses that cannot be reached.
    Addresses = "ADDRESSES",
    /// Nodes out of touch with each other.
    Members = "MEMBERS",
    /// The nodes themselves say that the cluster is down.
    ClusterDown = "CLUSTER-DOWN",
    /// Slots without an owner, or with several.
    Slots = "SLOTS",
    /// Slots half moved.
    OpenSlots = "OPEN-SLOTS",
    /// Versions that differ or are too old.
    Versions = "VERSIONS",
    /// Clocks that differ.
    Clocks = "CLOCKS",
    /// Replicas that are missing or do not follow.
    Replicas = "REPLICAS",
    /// One lost node stops all.
    FullCoverage = "FULL-COVERAGE",
    /// Limits that are too low.
    Limits = "LIMITS",
    /// Protected mode.
    ProtectedMode = "PROTECTED-MODE",
    /// Databases of their own that share keys or nodes.
    Databases = "DATABASES",
}

impl Name {
    /// A text with its name behind it. A name that it has already, of what it tells of, gives place.
    pub fn on(self, text: impl Into<String>) -> String {
        let mut text = text.into();
        text.truncate(Name::without(text.as_bytes()).len());
        text + " (" + self.text() + ")"
    }

    /// The name behind a text.
    pub fn of(text: &[u8]) -> Option<Name> {
        let inner = text.strip_suffix(b")")?;
        let at = inner.iter().rposition(|&byte| byte == b'(')?;
        let name = inner.get(at + 1..)?;
        Name::ALL.iter().copied().find(|known| known.text().as_bytes() == name)
    }

    /// A text without the name behind it.
    pub fn without(text: &[u8]) -> &[u8] {
        match Name::of(text) {
            Some(name) => text[..text.len() - name.text().len() - 2].trim_ascii_end(),
            None => text,
        }
    }

    /// The name that is written so, in any case, with `SLOTWAY-` or without.
    pub fn find(text: &str) -> Option<Name> {
        let text = text.trim().to_ascii_uppercase();
        let short = text.strip_prefix(PREFIX).unwrap_or(&text);
        Name::ALL.iter().copied().find(|name| &name.text()[PREFIX.len()..] == short)
    }

    /// Whether a text is meant for a name, be there one or not.
    pub fn is_meant_by(text: &str) -> bool {
        text.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
    }

    /// What the page says of it: what it means, whether a request has run, what to do.
    pub fn paragraph(self) -> &'static str {
        let heading = format!("\n### {}\n", self.text());
        let Some((_, rest)) = PAGE.split_once(&heading) else { return "" };
        rest.split("\n#").next().unwrap_or(rest).trim()
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_has_a_paragraph_and_every_paragraph_a_name() {
        let names: BTreeSet<&str> = Name::ALL.iter().map(|name| name.text()).collect();
        let headings: Vec<&str> = PAGE.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        assert_eq!(headings.iter().copied().collect::<BTreeSet<_>>(), names);
        assert_eq!(headings.len(), names.len(), "twice on the page");
        for name in Name::ALL {
            let paragraph = name.paragraph();
            assert!(paragraph.contains("**Do:** "), "{name} does not say what to do");
            assert!(paragraph.len() > 60, "{name}: {paragraph}");
        }
    }

    #[test]
    fn replies_say_whether_the_request_ran() {
        let (replies, _) = PAGE.split_once("\n## At the start").expect("the chapter");
        let named = Name::ALL.iter().take_while(|name| **name != Name::ConfigFile);
        for name in named {
            assert!(replies.contains(&format!("### {name}\n")), "{name} is among the replies");
            assert!(name.paragraph().contains("**Ran?** "), "{name} does not say whether the request ran");
        }
    }

    #[test]
    fn a_text_bears_one_name() {
        let inner = Name::NotSent.on("ERR proxy: lost");
        assert_eq!(inner, "ERR proxy: lost (SLOTWAY-NOT-SENT)");
        assert_eq!(Name::of(inner.as_bytes()), Some(Name::NotSent));
        assert_eq!(
            Name::Wait.on(format!("ERR proxy: no count: {inner}")),
            "ERR proxy: no count: ERR proxy: lost (SLOTWAY-WAIT)"
        );
        for text in ["", ")", "(SLOTWAY-)", "x (SLOTWAY-NONE)", "x (SLOTWAY-WAIT) y"] {
            assert_eq!(Name::of(text.as_bytes()), None, "{text}");
            assert_eq!(Name::without(text.as_bytes()), text.as_bytes());
        }
        assert_eq!(Name::find("slotway-node-lost"), Some(Name::NodeLost));
        assert_eq!((Name::find("Node-Lost"), Name::find("get")), (Some(Name::NodeLost), None));
    }
}
