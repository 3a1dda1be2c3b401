//! What sessions have to know of a command besides where it goes: columns of its row that follow from its name, since no
//! server tells them.

use super::{
    spec::Spec,
    treatment::{Local, MergeRule, ProxyCommand, Scripting, Treatment},
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
    /// What the command tells or changes of users.
    pub about_users: AboutUsers,
    /// Its first argument is a channel, where something is published.
    pub publishes: bool,
    /// It is there to change when keys have been used last.
    pub touches: bool,
    /// It tells how others of its container are used.
    pub helps: bool,
    /// It runs what its client, or another, has programmed, as whatever user.
    pub runs_code: bool,
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

/// What a command tells or changes of users. The nodes' users are not those of the proxy's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AboutUsers {
    /// Nothing.
    #[default]
    Nothing,
    /// Their rules, each in a line.
    List,
    /// Their names.
    Names,
    /// One's rules.
    Rules,
    /// Whether one may run a command.
    Dryrun,
    /// What they were refused.
    Log,
    /// It changes them.
    Changes,
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
        about_users: match name {
            "acl|dryrun" => AboutUsers::Dryrun,
            "acl|getuser" => AboutUsers::Rules,
            "acl|list" => AboutUsers::List,
            "acl|log" => AboutUsers::Log,
            "acl|users" => AboutUsers::Names,
            "acl|deluser" | "acl|load" | "acl|save" | "acl|setuser" => AboutUsers::Changes,
            _ => AboutUsers::Nothing,
        },
        publishes: matches!(name, "publish" | "spublish"),
        touches: name == "touch",
        helps: sub == "help",
        runs_code: matches!(
            spec.treatment,
            Treatment::Scripting(Scripting::Eval | Scripting::Evalsha | Scripting::Fcall)
                | Treatment::Local(Local::Proxy(ProxyCommand::Node))
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
        about_servers: spec.treatment == Treatment::Primaries(MergeRule::Info)
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
            |traits| traits.about_users != super::AboutUsers::Nothing,
        );
        named(
            "client|pause client|unpause proxy|config proxy|hotkeys proxy|reload proxy|slowlog script|flush",
            |traits| traits.acts_on_all,
        );
        named("touch", |traits| traits.touches);
        named("publish spublish", |traits| traits.publishes);
        named("eval eval_ro evalsha evalsha_ro fcall fcall_ro proxy|node", |traits| traits.runs_code);
        named("psync replconf script|debug sync", |traits| traits.binds_connection);
    }
}
