//! PROXY: the proxy's own commands, about itself and for reaching one node on purpose.
//!
//! PROXY NODE takes a new connection for each command and closes it afterwards: whatever the command does to its
//! connection, nobody else is on it. What could not be answered by one reply is refused.

pub mod told;

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{net::lookup_host, time::timeout};

use super::{caller::Caller, database, local::Answer, names, permission, work::Work};
use crate::{
    clients::ChangeOfUsers,
    cluster::{
        explain::{Grounds, frame_of},
        topology::{Named, Node, Role, Topology},
    },
    commands::{
        database::Entered,
        plan::{self, Plan, Policy},
        table::{
            Flags, Spec, Treatment,
            treatment::{ClientCommand, Local, ProxyCommand},
        },
    },
    metrics::DatabaseGlance,
    metrics::readable::time_of_day,
    protocol::{
        resp::{
            Request,
            request::{Parser, RequestWriter},
            write,
        },
        says,
    },
    upstream::{dial::Login, router::Router},
};

/// How long a node may take for what an operator asks of it (SAVE, DEBUG RELOAD): long, but not for ever. Commands that
/// may wait go by their own timeouts.
const PATIENCE: Duration = Duration::from_secs(60);
/// PROXY NODE and the node: what stands before the command.
const BEFORE_COMMAND: usize = 3;

const HELP: &[&str] = &[
    "PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CLIENTS",
    "    List this proxy's clients, whoever holds most memory first.",
    "CONFIG [GET <pattern>]",
    "    Show the settings in force.",
    "DATABASES",
    "    List the databases of their own that are in use: slot, node, keys of the slot, clients, requests a second.",
    "EVENTS [<count>]",
    "    What has happened, the newest first: id, Unix time, severity, kind, text.",
    "EXPLAIN <command> [<arg> ...]",
    "    Say how a command would be served: its keys, slots, nodes and parts. It is not run.",
    "HOTKEYS [<count>]",
    "    The keys asked for most, estimated: key, slot, node, requests/s, percent of writes, last command.",
    "INFO",
    "    Show this proxy at a glance.",
    "NODE <node> <command> [<arg> ...]",
    "    Run a command on one node. <node> is host:port, :port, a host, the start of a node id,",
    "    slot:<number> or key:<key>. What the proxy refuses otherwise goes only to a node named as such.",
    "NODES",
    "    List the nodes: address, role, id, slots.",
    "READS (PRIMARY|REPLICA|NEAREST)",
    "    Choose who answers what this connection only reads.",
    "RELOAD",
    "    Read the configuration again. Says what has changed, and what needs a restart.",
    "SLOTS",
    "    List ranges of slots: owner, replicas, requests/s.",
    "SLOWLOG GET [<count>] | LEN | RESET",
    "    Requests that took long: id, Unix time, microseconds, arguments, client, its name, node, slot,",
    "    microseconds waiting here, microseconds at the node.",
    "HELP",
    "    Print this help.",
];

/// The answer to PROXY.
pub(super) fn answer(caller: &Caller, sub: ProxyCommand, request: &Request<'_>) -> Answer {
    match sub {
        ProxyCommand::Node => Answer::Work(Work::OneNode),
        ProxyCommand::Databases => lines(&databases(caller)),
        ProxyCommand::Explain => lines(&explain(caller, request)),
        ProxyCommand::Help => Answer::with(|out| {
            write::array(out, HELP.len());
            HELP.iter().for_each(|line| write::simple(out, line));
        }),
        ProxyCommand::Info => lines(&glance(&caller.router)),
        ProxyCommand::Clients => lines(&told::clients(caller)),
        ProxyCommand::Slots => lines(&told::slots(&caller.router)),
        ProxyCommand::Config => told::config(caller, request),
        ProxyCommand::Hotkeys => told::hotkeys(caller, request),
        ProxyCommand::Slowlog => told::slowlog(caller, request),
        ProxyCommand::Events => told::events(caller, request),
        ProxyCommand::Nodes => lines(&nodes(&caller.router)),
        ProxyCommand::Reload => Answer::Work(Work::Reload),
        // It is about the session.
        ProxyCommand::Reads | ProxyCommand::Unknown => Answer::refused(says::unknown_subcommand(request)),
    }
}

fn lines(lines: &[String]) -> Answer {
    Answer::with(|out| write_lines(out, lines))
}

fn write_lines(out: &mut Vec<u8>, lines: &[String]) {
    write::array(out, lines.len());
    lines.iter().for_each(|line| write::bulk(out, line.as_bytes()));
}

/// PROXY RELOAD: what has changed and what needs a restart; or why nothing has been taken.
pub(super) async fn reload(caller: Caller) -> Bytes {
    let mut out = Vec::new();
    match caller.router.reloads().ask().await {
        Ok(report) => write_lines(&mut out, &report),
        Err(why) => write::error(&mut out, says::not_reloaded(&why).as_bytes()),
    }
    out.into()
}

fn explain(caller: &Caller, request: &Request<'_>) -> Vec<String> {
    let topology = caller.router.topology();
    let policy: &Policy = &caller.router.settings().policy;
    let grounds = Grounds { commands: &topology.commands, policy, topology: Some(&topology) };
    let Some(frame) = frame_of(&request.args().skip(2).collect::<Vec<_>>()) else {
        return vec!["a quote stays open".to_owned()];
    };
    let mut parser = Parser::default();
    let Ok(Some(found)) = parser.find(&frame) else { return Vec::new() };
    let request = parser.request(&frame, found);
    let lines = explain_inside(caller, &request, &topology, grounds).unwrap_or_else(|| grounds.lines(&request));
    lines.iter().map(|(about, text)| format!("{about:8} {text}")).collect()
}

/// How a request is served in the client's database of its own, where it is in one.
fn explain_inside(
    caller: &Caller,
    request: &Request<'_>,
    topology: &Topology,
    grounds: Grounds<'_>,
) -> Option<Vec<(&'static str, String)>> {
    let database = &caller.database.as_ref()?.database;
    let prefix = String::from_utf8_lossy(database.prefix());
    let place = format!("{}: a key foo is kept as {prefix}foo, in {}", database.name(), grounds.slot(database.slot()));
    let spec = topology.commands.find(request);
    let known = database::known(caller, &topology.commands, spec, false);
    let mut writer = RequestWriter::default();
    let entered = database.enter(request, spec, known, &mut writer);
    known.wrapped.take_not_run_yet();
    let lines = match entered {
        Entered::AsItCame => grounds.lines(request),
        Entered::Rewritten | Entered::RewrittenUntold => grounds.lines(&writer.request()),
        Entered::Refused(error) => vec![("served", format!("not at all: {}", String::from_utf8_lossy(&error)))],
        Entered::Unchanged(error) => {
            vec![("served", format!("where all is so already, else: {}", String::from_utf8_lossy(&error)))]
        }
        Entered::InEach => {
            vec![("served", "in each of the databases that SELECT leads to, one after the other".into())]
        }
        Entered::CountsKeys => grounds.lines(request),
        Entered::CountsPatterns => vec![("served", "by the proxy, which knows its clients' patterns".into())],
        Entered::ForgetsScripts => vec![("served", "by the proxy, which forgets the scripts of this database".into())],
    };
    Some([("database", place)].into_iter().chain(lines).collect())
}

fn glance(router: &Router) -> Vec<String> {
    let topology = router.topology();
    let totals = router.tally().metrics().totals();
    let clients = router.clients();
    let mut lines = vec![
        format!("version:{}", crate::VERSION),
        format!("revision:{}", crate::REVISION),
        format!("uptime_in_seconds:{}", clients.since.elapsed().as_secs()),
        format!("connected_clients:{}", clients.count()),
        format!("maxclients:{}", router.connector().descriptors.max_clients()),
        format!("blocked_clients:{}", clients.blocked()),
        format!("buffered_bytes:{}", clients.buffered()),
        format!("commands_processed:{}", totals.commands),
        format!("server:{:?} {}", topology.server.kind, topology.server.version),
        format!("topology_epoch:{}", topology.epoch),
        format!("nodes:{}", topology.nodes.len()),
        format!("primaries:{}", topology.first_slots().len()),
        format!("slots_assigned:{}", topology.covered()),
        format!("slots_reachable:{}", topology.reachable()),
    ];
    lines.extend(topology.complaint().map(|trouble| format!("trouble:{trouble}")));
    lines
}

/// Those that are in use. Who works in one is told of those that it may choose from.
fn databases(caller: &Caller) -> Vec<String> {
    let topology = caller.router.topology();
    let may_see = |name: &str| {
        caller.databases.get(0).is_none() || caller.databases.all().any(|(_, database)| database.name() == name)
    };
    let all = caller.router.tally().metrics().databases();
    let line = |database: &DatabaseGlance| {
        let node = topology.owner(database.slot).map_or("nowhere", |node| &node.label);
        let keys = database.keys.map_or_else(|| "unknown".to_owned(), |keys| keys.to_string());
        let DatabaseGlance { name, slot, clients, rate, .. } = database;
        format!("{name} slot {slot} at {node} keys {keys} clients {clients} requests/s {rate}")
    };
    all.iter().filter(|database| database.is_in_use() && may_see(&database.name)).map(line).collect()
}

fn nodes(router: &Router) -> Vec<String> {
    let topology = router.topology();
    let present = router.tally().metrics().history().present();
    let line = |(index, (node, role)): (usize, (&Arc<Node>, &str))| {
        let mut line = format!("{} {role} {}", node.label, node.id);
        if let Some(primary) = &node.replicates {
            line.push_str(&format!(" of {primary}"));
        }
        let ranges = topology.ranges(index);
        let ranges = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>();
        if !ranges.is_empty() {
            line.push_str(&format!(" slots {}", ranges.join(",")));
        }
        if node.reach != node.announced {
            line.push_str(&format!(" reached at {}", node.reach));
        }
        if let Some(lost) = topology.lost(&node.id) {
            line.push_str(&format!(" lost since {} ({})", time_of_day(lost.since), lost.why));
        } else if let (_, Some(since)) = present.node(&node.label) {
            line.push_str(&format!(" slow since {}", time_of_day(since)));
        }
        line
    };
    let mut lines: Vec<String> = topology.shown().enumerate().map(line).collect();
    lines.sort();
    lines
}

/// The nodes' users may have changed when this goes.
struct Changed(Rc<Router>, Option<ChangeOfUsers>);

impl Drop for Changed {
    fn drop(&mut self) {
        self.1.take().into_iter().for_each(|change| permission::look_after_change(&self.0, change));
    }
}

/// A command for one node.
pub(super) struct OneNode {
    node: Arc<Node>,
    frame: Vec<u8>,
    /// The node may take as long as the command says.
    pub(super) waits: bool,
    changes_users: bool,
    /// What ends a script must not wait for it.
    is_about_data: bool,
}

impl OneNode {
    /// Reads `PROXY NODE node command ...`.
    pub(super) async fn find(caller: &Caller, request: &Request<'_>) -> Result<OneNode, String> {
        caller.router.refresh();
        let topology = caller.router.topology().clone();
        let mut frame = Vec::new();
        let args: Vec<&[u8]> = request.args().skip(BEFORE_COMMAND).collect();
        write::request(&mut frame, &args);
        let mut parser = Parser::default();
        let Ok(Some(found)) = parser.find(&frame) else { return Err(says::SYNTAX.to_owned()) };
        let command = parser.request(&frame, found);
        names::learn(caller, command.name()).await?;
        let spec = topology.commands.find(&command);
        if let Some(spec) = spec.filter(|spec| needs_its_connection(spec)) {
            return Err(says::not_for_one_node(&spec.name));
        }
        let Named { node, as_owner } = named(caller, request.arg(2), &topology).await?;
        if let Some(spec) = spec.filter(|spec| as_owner && is_refused(&command, spec, &caller.router.settings().policy))
        {
            return Err(says::only_at_a_node(&spec.name, &node.label));
        }
        Ok(OneNode {
            node: node.clone(),
            waits: spec.is_some_and(|spec| spec.flags.has(Flags::BLOCKING)),
            changes_users: spec.is_some_and(|spec| spec.traits.changes_users),
            is_about_data: spec.is_none_or(|spec| spec.has_keys() || spec.is_write()),
            frame,
        })
    }

    /// The node's own reply, if it has any.
    pub(super) async fn run(self, caller: Caller) -> Result<Option<Bytes>, String> {
        let Caller { router, line, client, lane, .. } = caller;
        // A replica answers reads of its slots to those only who have said that they want to read from it.
        let login = Login { readonly: self.node.role == Role::Replica, ..lane.login().clone() };
        if self.is_about_data {
            line.doubts.settled(&self.node, None, router.timeouts().recovery().timeout).await?;
        }
        let connection = router.pool(&login).take(&self.node).await;
        let connection = connection.map_err(|error| {
            router.hint(error.hint(&self.node));
            error.reply()
        })?;
        let mut connection = connection.on_behalf_of(&line.doubts);
        let timeouts = router.timeouts();
        let patience = if self.waits { Duration::MAX } else { PATIENCE.max(timeouts.request_timeout()) };
        let _changed = self.changes_users.then(|| Changed(router.clone(), Some(client.changes_users())));
        match connection.exchange(&self.frame, 1, patience).await {
            Ok(replies) => Ok(replies.into_iter().next()),
            Err(why) => {
                connection.count_failure(&why);
                Err(says::no_reply(&self.node.label, why))
            }
        }
    }
}

/// The node that is meant, by what the cluster knows or else by what the network makes of a host.
async fn named<'a>(caller: &Caller, name: &[u8], topology: &'a Topology) -> Result<Named<'a>, String> {
    let unknown = match topology.find(name) {
        Ok(named) => return Ok(named),
        Err(unknown) => unknown,
    };
    let Some((host, port)) = unknown.host else { return Err(unknown.error) };
    let patience = caller.router.connector().dialer.patience();
    match timeout(patience, lookup_host((host, port.unwrap_or_default()))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.collect();
            topology.find_at(&String::from_utf8_lossy(name), port, &addresses)
        }
        _ => Err(unknown.error),
    }
}

/// Whether the proxy does not serve a command unless a node is named for it.
fn is_refused(command: &Request<'_>, spec: &Spec, policy: &Policy) -> bool {
    let by_arguments = matches!(spec.treatment, Treatment::ConfigSet | Treatment::Debug)
        && matches!(plan::plan(command, Some(spec), policy), Plan::Refuse(_) | Plan::Unchanged(_));
    policy.refuses(spec).is_some() || by_arguments
}

/// Whether a command is about its connection, or is answered by other than one reply, so that a connection of one
/// command and one reply would serve it untruly.
fn needs_its_connection(spec: &Spec) -> bool {
    let Treatment::Local(local) = spec.treatment else { return spec.traits.binds_connection };
    match local {
        Local::Client(sub) => matches!(sub, ClientCommand::Reply | ClientCommand::Tracking | ClientCommand::Caching),
        Local::Ping | Local::Echo | Local::ClusterKeyslot | Local::AclWhoami | Local::Wait | Local::Waitaof => false,
        Local::CountPatterns | Local::ForgetScripts => false,
        Local::Hello | Local::Auth | Local::Select | Local::Quit | Local::Reset => true,
        Local::Readonly | Local::Readwrite | Local::Asking => true,
        Local::Multi | Local::Exec | Local::Discard | Local::Watch | Local::Unwatch => true,
        Local::Subscribe | Local::Psubscribe | Local::Ssubscribe => true,
        Local::Unsubscribe | Local::Punsubscribe | Local::Sunsubscribe => true,
        Local::Monitor | Local::ClusterView(_) | Local::Proxy(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::spawn_local;

    use super::*;
    use crate::upstream::router::scripted::{Scripted, frame, request, within_a_minute};

    #[tokio::test(start_paused = true)]
    async fn a_command_for_one_node_has_a_connection_to_itself() {
        within_a_minute(async {
            let mut nodes = Scripted::new(2);
            let (caller, words) = (Caller::of(&nodes), request("PROXY NODE :7001 DBSIZE"));
            let command = OneNode::find(&caller, &words.as_request()).await.unwrap();
            assert!(!command.waits);
            let running = spawn_local(command.run(caller.clone()));
            let mut node = nodes.node(1).await;
            node.hears(&frame("DBSIZE")).await;
            node.says(b":7\r\n").await;
            assert_eq!(running.await.unwrap(), Ok(Some(":7\r\n".into())));
            assert_eq!(node.hears_the_end().await, b"", "and it is closed");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_for_one_node_is_refused() {
        within_a_minute(async {
            let caller = Caller::of(&Scripted::new(1));
            for (words, error) in [
                ("PROXY NODE :9 PING", "no node"),
                ("PROXY NODE :7000 SUBSCRIBE a", "SUBSCRIBE"),
                ("PROXY NODE key:a SHUTDOWN", "127.0.0.1:7000"),
            ] {
                let request = request(words);
                let said = OneNode::find(&caller, &request.as_request()).await.err().unwrap_or_default();
                assert!(said.to_lowercase().contains(&error.to_lowercase()), "{words}: {said}");
            }
        })
        .await;
    }
}
