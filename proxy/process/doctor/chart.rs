//! What one node says when it is asked everything at once.

use std::{collections::HashMap, net::SocketAddr, time::SystemTime};

use crate::{
    cluster::topology::{Member, ServerInfo, View, member::members},
    metrics::readable::unix_time,
    protocol::{address::Address, resp::Value},
    upstream::dial::{Control, DialError, Dialer, Login},
};

/// The questions, and whether the proxy itself needs the answer (or the permission). Those at the end are only allowed or
/// not: no node has such a key, and no transaction is left open.
const QUESTIONS: [(&str, Need); 19] = [
    ("CLUSTER MYID", Need::Useful),
    ("CLUSTER SLOTS", Need::Vital),
    ("CLUSTER NODES", Need::Useful),
    ("CLUSTER SHARDS", Need::Useful),
    ("CLUSTER INFO", Need::Doctor),
    ("INFO", Need::Useful),
    ("COMMAND COUNT", Need::Useful),
    ("CONFIG GET cluster-*", Need::Doctor),
    ("CONFIG GET protected-mode", Need::Doctor),
    ("ACL USERS", Need::Useful),
    ("ACL GETUSER default", Need::Useful),
    ("ACL DRYRUN default PING", Need::Useful),
    ("CLIENT ID", Need::Useful),
    ("CLIENT UNBLOCK 0", Need::Useful),
    ("ASKING", Need::Vital),
    ("EXISTS slotway-doctor", Need::Useful),
    ("WATCH slotway-doctor", Need::Useful),
    ("MULTI", Need::Useful),
    ("DISCARD", Need::Useful),
];

/// Who needs to be allowed a question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The proxy, to serve at all.
    Vital,
    /// The proxy, to serve everything.
    Useful,
    /// Only this examination.
    Doctor,
}

/// A node's clock beside ours.
#[derive(Clone, Copy)]
pub struct ClockSkew {
    /// How many seconds it is ahead.
    pub ahead: f64,
    /// How many seconds the measurement may be off.
    pub within: f64,
}

/// What one node says.
pub struct Chart {
    /// Where it was asked.
    pub at: Address,
    /// The address that its name led to.
    pub peer: Option<SocketAddr>,
    /// When the certificate that it shows ends, where it shows one.
    pub valid_until: Option<SystemTime>,
    /// Its clock.
    pub clock: Option<ClockSkew>,
    /// Its view of the cluster, or why it has none.
    pub view: Result<View, String>,
    replies: Vec<Value>,
}

impl Chart {
    /// Asks the node at `at`.
    pub async fn take(at: Address, login: Login, dialer: Dialer) -> Result<Chart, DialError> {
        let mut control = Control::open(&at, &login, &dialer).await?;
        let asked = now();
        let time = control.ask(&["TIME"]).await?;
        let clock = clock(&time, asked, now());
        let replies = match time {
            // It says so once, and hangs up.
            Value::Error(text) if text.starts_with(b"DENIED") => vec![Value::Error(text); QUESTIONS.len()],
            _ => control.ask_all(&QUESTIONS.map(|(question, _)| question)).await?,
        };
        let mut chart = Chart {
            peer: control.peer(),
            valid_until: control.valid_until(),
            at,
            clock,
            view: Err(String::new()),
            replies,
        };
        let nodes = chart.reply("CLUSTER NODES").str();
        let view = View::parse(chart.reply("CLUSTER SLOTS"), nodes, Some(chart.reply("CLUSTER SHARDS")), &chart.at);
        chart.view = view.map_err(|bad| bad.to_string());
        Ok(chart)
    }

    /// What it said to one of the questions.
    pub fn reply(&self, question: &str) -> &Value {
        let place = QUESTIONS.iter().position(|(asked, _)| *asked == question);
        place.and_then(|place| self.replies.get(place)).unwrap_or(&Value::Null)
    }

    /// Its node id, where it tells.
    pub fn id(&self) -> Option<&str> {
        let own = || Some(self.members().into_values().find(|member| member.has("myself"))?.id);
        self.reply("CLUSTER MYID").str().or_else(own)
    }

    /// The cluster's members as it knows them.
    pub fn members(&self) -> HashMap<&str, Member<'_>> {
        self.reply("CLUSTER NODES").str().map(members).unwrap_or_default()
    }

    /// Itself.
    pub fn own(&self) -> Option<Member<'_>> {
        self.members().into_values().find(|member| member.has("myself"))
    }

    /// A field of INFO.
    pub fn info(&self, field: &str) -> Option<&str> {
        let info = self.reply("INFO").str()?;
        info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
    }

    /// A number of INFO.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.info(field)?.parse().ok()
    }

    /// What the server is.
    pub fn server(&self) -> ServerInfo {
        ServerInfo::from_info(self.reply("INFO").str().unwrap_or_default())
    }

    /// A value of its configuration, where it tells.
    pub fn config(&self, key: &str) -> Option<&str> {
        let asked = ["CONFIG GET cluster-*", "CONFIG GET protected-mode"];
        asked.iter().find_map(|question| self.reply(question).field(key)).and_then(Value::str)
    }

    /// The questions that its ACL does not allow this user.
    pub fn forbidden(&self) -> Vec<(&'static str, Need)> {
        let refused = |reply: &Value| matches!(reply, Value::Error(text) if text.starts_with(b"NOPERM"));
        let asked = QUESTIONS.iter().zip(&self.replies);
        asked.filter(|(_, reply)| refused(reply)).map(|(question, _)| *question).collect()
    }

    /// `-h HOST -p PORT`, for `redis-cli`.
    pub fn cli(&self) -> String {
        cli(&self.at)
    }
}

/// `redis-cli` to an address.
pub fn cli(at: &Address) -> String {
    format!("redis-cli -h {} -p {}", at.host, at.port)
}

fn now() -> f64 {
    unix_time(SystemTime::now()).as_secs_f64()
}

fn clock(reply: &Value, asked: f64, answered: f64) -> Option<ClockSkew> {
    let [seconds, micros] = reply.items() else { return None };
    let theirs = seconds.integer()? as f64 + micros.integer()? as f64 / 1e6;
    Some(ClockSkew { ahead: theirs - (asked + answered) / 2.0, within: (answered - asked) / 2.0 })
}
