//! What sessions have to know of a command besides where it goes: columns of its row that follow from its name, since no
//! server tells them.

use super::{
    spec::Spec,
    treatment::{Fold, Local, Treatment},
};

/// What a session has to know of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// A client that speaks RESP2 may say it while it is subscribed.
    pub while_subscribed: bool,
    /// Replicas or subscribers hear of it, though it is no write (the servers' `CMD_MAY_REPLICATE`).
    pub propagates: bool,
    /// The command changes the nodes' users.
    pub changes_users: bool,
    /// The command is about the nodes' users, whom those of the proxy's own do not know.
    pub about_users: bool,
    /// The command acts on clients or scripts of all databases.
    pub acts_on_all: bool,
    /// One of CLIENT's: what CLIENT CACHING says of the next command is not about it.
    pub about_clients: bool,
    /// The command begins CONFIG RESETSTAT's new count.
    pub counts_anew: bool,
    /// The command tells of servers or is for them, and not about keys: in a transaction that can be done when the
    /// others have run.
    pub about_servers: bool,
    /// What a server may put of the client's own bytes, line breaks and all, into an error.
    pub echoes: Echoes,
    /// With one of these options behind its keys it is about all of them or none.
    pub whole_with: &'static [&'static str],
    /// Its connection is another one afterwards, or it is answered by other than one reply.
    pub binds_connection: bool,
}

/// What a server may echo in an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echoes {
    /// Nothing that the client could choose.
    #[default]
    Nothing,
    /// Anything that its code says.
    Anything,
    /// The options from this argument on.
    Options(usize),
    /// The first line of the script in this argument.
    Script(usize),
}

/// The columns of a row.
pub fn of(spec: &Spec) -> Traits {
    let name = &*spec.name;
    let (container, sub) = name.split_once('|').unwrap_or((name, ""));
    Traits {
        about_clients: container == "client" && !sub.is_empty(),
        while_subscribed: matches!(
            spec.treatment,
            Treatment::Local(
                Local::Subscribe
                    | Local::Psubscribe
                    | Local::Ssubscribe
                    | Local::Unsubscribe
                    | Local::Punsubscribe
                    | Local::Sunsubscribe
                    | Local::Ping
                    | Local::Quit
                    | Local::Reset
            )
        ),
        propagates: matches!(name, "pfcount" | "publish" | "spublish"),
        changes_users: matches!(name, "acl|setuser" | "acl|deluser" | "acl|load"),
        about_users: matches!(
            name,
            "acl|deluser"
                | "acl|dryrun"
                | "acl|getuser"
                | "acl|list"
                | "acl|load"
                | "acl|log"
                | "acl|save"
                | "acl|setuser"
                | "acl|users"
        ),
        acts_on_all: matches!(
            name,
            "client|pause"
                | "client|unpause"
                | "proxy|config"
                | "proxy|hotkeys"
                | "proxy|reload"
                | "proxy|slowlog"
                | "script|flush"
        ),
        counts_anew: name == "config|resetstat",
        about_servers: spec.treatment == Treatment::Primaries(Fold::Info)
            || container != name && matches!(container, "commandlog" | "config" | "latency" | "slowlog"),
        echoes: match name {
            "function|load" | "function|restore" => Echoes::Anything,
            "function|list" => Echoes::Options(2),
            "eval" | "eval_ro" => Echoes::Script(1),
            "script|load" => Echoes::Script(2),
            _ => Echoes::Nothing,
        },
        whole_with: if name == "msetex" { &["NX", "XX"] } else { &[] },
        binds_connection: matches!(name, "sync" | "psync" | "replconf" | "script|debug"),
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::table::CommandTable;

    #[test]
    fn the_columns_are_those_of_their_commands() {
        let table = CommandTable::builtin();
        let named = |names: &str, has: fn(&super::Traits) -> bool| {
            let mut found: Vec<&str> =
                table.rows().iter().filter(|spec| has(&spec.traits)).map(|spec| &*spec.name).collect();
            found.sort_unstable();
            assert_eq!(found.join(" "), names);
        };
        named("ping psubscribe punsubscribe quit reset ssubscribe subscribe sunsubscribe unsubscribe", |traits| {
            traits.while_subscribed
        });
        named("pfcount publish spublish", |traits| traits.propagates);
        named("acl|deluser acl|load acl|setuser", |traits| traits.changes_users);
        named(
            "acl|deluser acl|dryrun acl|getuser acl|list acl|load acl|log acl|save acl|setuser acl|users",
            |traits| traits.about_users,
        );
        named(
            "client|pause client|unpause proxy|config proxy|hotkeys proxy|reload proxy|slowlog script|flush",
            |traits| traits.acts_on_all,
        );
        named("psync replconf script|debug sync", |traits| traits.binds_connection);
    }
}
