//! PROXY: the proxy's own commands, about itself and for reaching one node on purpose.
//!
//! PROXY NODE takes a new connection for each command and closes it afterwards: whatever the command does to its
//! connection, nobody else is on it. What could not be answered by one reply is refused.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::{net::lookup_host, time::timeout};

use super::{Flow, Session, alone::Work, attend::Eof, leave};
use crate::{
    cluster::{
        explain::{self, Grounds},
        topology::{Named, Role, Topology},
    },
    commands::{
        plan::{self, Plan, Policy},
        table::{
            Flags, Spec, Treatment,
            treatment::{Client, Local, Proxy},
        },
    },
    protocol::{
        resp::{Request, request::Parser, write},
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
    "EXPLAIN <command> [<arg> ...]",
    "    Say how a command would be served: its keys, slots, nodes and parts. It is not run.",
    "INFO",
    "    Show this proxy at a glance.",
    "NODE <node> <command> [<arg> ...]",
    "    Run a command on one node. <node> is host:port, :port, a host, the start of a node id,",
    "    slot:<number> or key:<key>. What the proxy refuses otherwise goes only to a node named as such.",
    "NODES",
    "    List the nodes: address, role, id, slots.",
    "HELP",
    "    Print this help.",
];

impl Session {
    pub(super) fn proxy_command(&mut self, sub: Proxy, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        match sub {
            Proxy::Node => Flow::alone(Work::OneNode),
            Proxy::Explain => self.explain(request, spec),
            Proxy::Help => self.answer_with(spec, |out| {
                write::array(out, HELP.len());
                HELP.iter().for_each(|line| write::simple(out, line));
            }),
            Proxy::Info => self.answer_lines(spec, &glance(&self.caller.router)),
            Proxy::Nodes => self.answer_lines(spec, &nodes(&self.caller.router)),
            Proxy::Unknown => self.refuse(spec, &says::unknown_subcommand(request)),
        }
    }

    fn answer_lines(&self, spec: Option<&Spec>, lines: &[String]) -> Flow {
        self.answer_with(spec, |out| {
            write::array(out, lines.len());
            lines.iter().for_each(|line| write::bulk(out, line.as_bytes()));
        })
    }

    fn explain(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let router = self.caller.router.clone();
        let topology = router.topology();
        let policy: &Policy = &router.settings().policy;
        let grounds = Grounds { commands: &topology.commands, policy, topology: Some(&topology) };
        let args: Vec<&[u8]> = request.args().skip(2).collect();
        let lines = explain::explain(&args, grounds).unwrap_or_default();
        let lines: Vec<String> = lines.iter().map(|(about, text)| format!("{about:8} {text}")).collect();
        self.answer_lines(spec, &lines)
    }

    /// PROXY NODE: the node's own reply; `None` where the client has gone.
    pub(super) async fn one_node(&mut self, request: &Request<'_>) -> Option<Bytes> {
        match self.ask_one_node(request).await {
            Ok(reply) => reply,
            Err(text) => {
                let mut frame = Vec::new();
                write::error(&mut frame, text.as_bytes());
                Some(frame.into())
            }
        }
    }

    async fn ask_one_node(&mut self, request: &Request<'_>) -> Result<Option<Bytes>, String> {
        self.caller.router.refresh();
        let topology = self.caller.router.topology().clone();
        let mut frame = Vec::new();
        let args: Vec<&[u8]> = request.args().skip(BEFORE_COMMAND).collect();
        write::request(&mut frame, &args);
        let mut parser = Parser::default();
        let Ok(Some(found)) = parser.find(&frame) else { return Err(says::SYNTAX.to_owned()) };
        let command = parser.request(&frame, found);
        if !self.knows_name(command.name()).await? {
            return Ok(None);
        }
        let spec = topology.commands.find(&command);
        if let Some(spec) = spec.filter(|spec| needs_its_connection(spec)) {
            return Err(says::not_for_one_node(&spec.name));
        }
        let Some(Named { node, as_owner }) = self.named(request.arg(2), &topology).await? else { return Ok(None) };
        if let Some(spec) =
            spec.filter(|spec| as_owner && is_refused(&command, spec, &self.caller.router.settings().policy))
        {
            return Err(says::only_at_a_node(&spec.name, &node.label));
        }
        let node = node.clone();
        let waits = spec.is_some_and(|spec| spec.flags.has(Flags::BLOCKING));
        // A replica answers reads of its slots to those only who have said that they want to read from it.
        let login = Login { readonly: node.role == Role::Replica, ..self.caller.lane.login().clone() };
        let limits = self.caller.router.context().limits.clone();
        let (router, doubts, issuer) =
            (self.caller.router.clone(), self.caller.line.doubts.clone(), self.caller.client.id);
        let changes_users = spec.is_some_and(|spec| spec.traits.changes_users);
        // What ends a script must not wait for it.
        let is_about_data = spec.is_none_or(|spec| spec.has_keys() || spec.is_write());
        let work = async move {
            if is_about_data {
                doubts.settled(&node, None, router.context().recovery.timeout).await?;
            }
            let connection = router.pool(&login).take(&node).await;
            let connection = connection.map_err(|error| {
                router.hint(error.hint(&node));
                error.reply()
            })?;
            let mut connection = connection.on_behalf_of(&doubts);
            let patience = if waits { Duration::MAX } else { PATIENCE.max(limits.request_timeout) };
            let _changed = changes_users.then(|| Changed(router.clone(), issuer));
            match connection.exchange(&frame, 1, patience).await {
                Ok(replies) => Ok(replies.into_iter().next()),
                Err(why) => {
                    connection.count_failure(&why);
                    Err(format!("ERR proxy: no reply from {} ({why}), the command may have run", node.label))
                }
            }
        };
        match self.attend(work, if waits { Eof::Leaves } else { Eof::Waits }).await {
            Ok(done) => done,
            Err(reason) => {
                self.ending = Some(reason);
                Ok(None)
            }
        }
    }
}

fn glance(router: &Router) -> Vec<String> {
    let topology = router.topology();
    let totals = router.tally().metrics().totals();
    let clients = router.clients();
    let mut lines = vec![
        format!("version:{}", env!("CARGO_PKG_VERSION")),
        format!("uptime_in_seconds:{}", clients.since.elapsed().as_secs()),
        format!("connected_clients:{}", clients.count()),
        format!("maxclients:{}", router.context().descriptors.max_clients()),
        format!("blocked_clients:{}", clients.blocked()),
        format!("buffered_bytes:{}", clients.buffered()),
        format!("commands_processed:{}", totals.commands),
        format!("server:{:?} {}", topology.server.kind, topology.server.version),
        format!("topology_epoch:{}", topology.epoch),
        format!("nodes:{}", topology.nodes.len()),
        format!("primaries:{}", topology.first_slots().len()),
        format!("slots_assigned:{}", topology.covered()),
    ];
    lines.extend(topology.trouble.as_ref().map(|trouble| format!("trouble:{trouble}")));
    lines
}

fn nodes(router: &Router) -> Vec<String> {
    let topology = router.topology();
    let line = |(index, node): (usize, &std::sync::Arc<crate::cluster::topology::Node>)| {
        let mut line = format!("{} {} {}", node.label, node.role.label(), node.id);
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
        line
    };
    let mut lines: Vec<String> = topology.nodes.iter().enumerate().map(line).collect();
    lines.sort();
    lines
}

/// The nodes' users may have changed when this goes.
struct Changed(Rc<Router>, u64);

impl Drop for Changed {
    fn drop(&mut self) {
        leave::look_after_change(&self.0, self.1);
    }
}

impl Session {
    /// The node that is meant, by what the cluster knows or else by what the network makes of a host. `None` where the
    /// client has gone.
    async fn named<'a>(&mut self, name: &[u8], topology: &'a Topology) -> Result<Option<Named<'a>>, String> {
        let unknown = match topology.find(name) {
            Ok(named) => return Ok(Some(named)),
            Err(unknown) => unknown,
        };
        let Some((host, port)) = unknown.host else { return Err(unknown.error) };
        let patience = self.caller.router.context().dialer.patience();
        let lookup = timeout(patience, lookup_host((host, port.unwrap_or_default())));
        match self.attend(lookup, Eof::Waits).await {
            Ok(Ok(Ok(addresses))) => {
                let addresses: Vec<_> = addresses.collect();
                topology.find_at(&String::from_utf8_lossy(name), port, &addresses).map(Some)
            }
            Ok(_) => Err(unknown.error),
            Err(reason) => {
                self.ending = Some(reason);
                Ok(None)
            }
        }
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
    match spec.treatment {
        Treatment::Local(Local::Client(sub)) => matches!(sub, Client::Reply | Client::Tracking | Client::Caching),
        Treatment::Local(
            Local::Ping | Local::Echo | Local::ClusterKeyslot | Local::AclWhoami | Local::Wait | Local::Waitaof,
        ) => false,
        Treatment::Local(_) => true,
        _ => spec.traits.binds_connection,
    }
}
