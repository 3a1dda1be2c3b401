//! Requests that were given up and may still run: which connections they wait on, and when they surely run no more.
//!
//! A node that stands still for a while has bytes of its clients in its kernel. It executes them when it goes on, also
//! those of a connection that has been closed since. A client that was told "the command may have run" and writes again
//! by another connection could see its second write undone by the first. So a session remembers the connections that
//! owe it something ([`Doubts`]), and nothing of it goes to their node by another way before they are known to be quiet:
//! the late reply has come, or the node itself has ended them (CLIENT KILL) or has none of that id any more.
//!
//! Other sessions are not concerned, and neither are other nodes: where a slot has changed its owner, the old one
//! refuses what comes late.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cluster::{recovery::BETWEEN_TRIES, topology::Node},
    protocol::{address::Address, resp::Value, says},
    upstream::dial::{Control, Dialer, Login},
};

/// How long the next attempt to end a connection waits once a node has not answered for long.
const RARE_PAUSE: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);
/// After so long nobody tries any more unless a request asks for it.
const GIVE_UP: Duration = Duration::from_secs(60);
/// After so long a lost connection counts as ended where the node does not let the proxy look (no CLIENT KILL for its
/// user, a server without ids): there is nothing better than time then.
const UNPROVEN: Duration = Duration::from_secs(10);
/// A node tells ages in whole seconds, by a clock that it reads now and then.
const AGE_STEP: Duration = Duration::from_secs(2);

/// A connection to a node, as what may be left on it.
pub struct Connection {
    node: Arc<Node>,
    ender: Rc<Ender>,
    /// What the node calls it, and since when it is open.
    id: Cell<Option<i64>>,
    since: Cell<Instant>,
    /// Requests that were given up and whose replies have not come.
    owed: Cell<usize>,
    /// When it was lost: no reply will come any more.
    lost: Cell<Option<Instant>>,
    /// Nothing runs on it any more, surely.
    ended: Cell<bool>,
    /// Why that could not be found out when it was tried last.
    obstacle: RefCell<String>,
}

impl Connection {
    /// One that is about to be opened.
    pub fn new(node: Arc<Node>, ender: Rc<Ender>) -> Rc<Connection> {
        Rc::new(Connection {
            node,
            ender,
            id: Cell::new(None),
            since: Cell::new(Instant::now()),
            owed: Cell::new(0),
            lost: Cell::new(None),
            ended: Cell::new(false),
            obstacle: RefCell::default(),
        })
    }

    /// The node has let it in.
    pub fn opened(&self, id: Option<i64>, since: Instant) {
        self.id.set(id);
        self.since.set(since);
    }

    /// What the node calls it, where that is known.
    pub fn id(&self) -> Option<i64> {
        self.id.get()
    }

    /// The node has told what it calls it.
    pub fn is_known_as(&self, id: i64) {
        self.id.set(Some(id));
    }

    /// A request on it is given up; it stays open, and the reply may come late.
    pub fn gives_up_one(&self) {
        self.owed.set(self.owed.get() + 1);
    }

    /// A late reply has come.
    pub fn hears_late(&self) {
        self.owed.set(self.owed.get().saturating_sub(1));
    }

    /// The connection is closed, or broken. From now on only the node can tell when it has done with it.
    pub fn is_lost(self: &Rc<Connection>) {
        self.lost.set(Some(Instant::now()));
        if Rc::strong_count(self) > 1 {
            self.ender.end(self);
        }
    }

    fn is_over(&self) -> bool {
        self.ended.get() || self.lost.get().is_none() && self.owed.get() == 0
    }
}

/// The connections that owe one session something.
#[derive(Default)]
pub struct Doubts(RefCell<Vec<Rc<Connection>>>);

/// A request must wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MustWait {
    /// The error to give up with.
    pub error: String,
    /// The node says itself that it takes nothing now: waiting is in vain.
    pub busy: bool,
}

impl Doubts {
    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Something was given up on this connection.
    pub fn add(&self, connection: &Rc<Connection>) {
        let mut all = self.0.borrow_mut();
        if !all.iter().any(|known| Rc::ptr_eq(known, connection)) {
            all.push(connection.clone());
        }
    }

    /// Whether something may still run at `node` on another connection than `way`, so that nothing may go there.
    pub fn hold(&self, node: &Node, way: Option<&Rc<Connection>>) -> Option<MustWait> {
        let mut all = self.0.borrow_mut();
        all.retain(|connection| !connection.is_over());
        let is_way = |connection: &Rc<Connection>| way.is_some_and(|way| Rc::ptr_eq(way, connection));
        // A node that is known from a redirect alone has no id yet.
        let is_there =
            |connection: &Rc<Connection>| connection.node.id == node.id || connection.node.reach == node.reach;
        let connection = all.iter().find(|connection| is_there(connection) && !is_way(connection))?;
        if connection.lost.get().is_some() {
            connection.ender.end(connection);
        }
        let obstacle = connection.obstacle.borrow();
        let busy = obstacle.starts_with("BUSY ");
        let error = if busy { obstacle.clone() } else { says::in_doubt(&node.label, &obstacle) };
        Some(MustWait { error, busy })
    }

    /// Waits until nothing runs at `node` that was given up elsewhere; the error where that takes longer than `patience`.
    pub async fn settled(&self, node: &Node, way: Option<&Rc<Connection>>, patience: Duration) -> Result<(), String> {
        let end = Instant::now() + patience;
        let mut backoff = BETWEEN_TRIES;
        while !self.is_empty()
            && let Some(held) = self.hold(node, way)
        {
            if held.busy || Instant::now() >= end {
                return Err(held.error);
            }
            tokio::time::sleep(backoff.pause()).await;
        }
        Ok(())
    }
}

/// Has nodes end what the proxy has lost, by the proxy's own login: the only one that does so in its worker.
pub struct Ender {
    login: Login,
    dialer: Dialer,
    /// By node: what is to be ended there. Some task is at it as long as there is an entry.
    lost: RefCell<HashMap<Address, Vec<Rc<Connection>>>>,
}

impl Ender {
    /// One that logs in like this.
    pub fn new(login: Login, dialer: Dialer) -> Rc<Ender> {
        Rc::new(Ender { login, dialer, lost: RefCell::default() })
    }

    fn end(self: &Rc<Ender>, connection: &Rc<Connection>) {
        let mut all = self.lost.borrow_mut();
        match all.get_mut(&connection.node.reach) {
            Some(lost) if lost.iter().any(|known| Rc::ptr_eq(known, connection)) => {}
            Some(lost) => lost.push(connection.clone()),
            None => {
                all.insert(connection.node.reach.clone(), vec![connection.clone()]);
                tokio::task::spawn_local(work(self.clone(), connection.node.clone()));
            }
        }
    }

    /// What is still to be ended at a node: some session waits for it.
    fn wanted(&self, node: &Node) -> Vec<Rc<Connection>> {
        let mut all = self.lost.borrow_mut();
        let Some(lost) = all.get_mut(&node.reach) else { return Vec::new() };
        lost.retain(|connection| !connection.is_over() && Rc::strong_count(connection) > 1);
        lost.clone()
    }

    /// Has the node end all these.
    async fn end_all(&self, node: &Node, lost: &[Rc<Connection>]) -> Result<(), String> {
        let opened = Control::open(&node.reach, &self.login.at(node), &self.dialer).await;
        let mut control = opened.map_err(|error| error.why)?;
        for connection in lost {
            match look(&mut control, connection).await? {
                Look::Gone => connection.ended.set(true),
                // There is nothing better than time.
                Look::Hidden(why) => {
                    let lost = connection.lost.get().unwrap_or_else(Instant::now);
                    connection.ended.set(lost.elapsed() >= UNPROVEN);
                    if connection.ended.get() {
                        tracing::warn!(
                            node = %node.label,
                            "the node does not say whether a lost connection has ended ({why}); it counts as ended"
                        );
                    } else {
                        return Err(why);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Ends what was lost at one node, as long as somebody waits for that.
async fn work(ender: Rc<Ender>, node: Arc<Node>) {
    let (since, mut backoff) = (Instant::now(), BETWEEN_TRIES);
    loop {
        let lost = ender.wanted(&node);
        if lost.is_empty() || since.elapsed() >= GIVE_UP {
            ender.lost.borrow_mut().remove(&node.reach);
            return;
        }
        match ender.end_all(&node, &lost).await {
            Ok(()) => {
                tracing::debug!(node = %node.label, connections = lost.len(), "lost connections are ended");
            }
            Err(why) => {
                for connection in &lost {
                    connection.obstacle.replace(why.clone());
                }
                // Nobody is held on to while nothing is done.
                drop(lost);
                let pause = backoff.pause();
                tokio::time::sleep(if since.elapsed() >= LONG { RARE_PAUSE } else { pause }).await;
            }
        }
    }
}

/// What a node says of one of its clients.
enum Look {
    /// The node has none of that kind any more.
    Gone,
    /// The node does not tell.
    Hidden(String),
}

/// Ends a connection at its node. The error is why that cannot be done now.
async fn look(control: &mut Control, connection: &Connection) -> Result<Look, String> {
    let Some(id) = connection.id.get() else { return Ok(Look::Hidden("it told no id".to_owned())) };
    let id = id.to_string();
    // A node that has restarted counts its clients anew: one that is younger than ours is another.
    let listed = control.ask(&["CLIENT", "LIST", "ID", &id]).await.map_err(|error| error.why)?;
    match &listed {
        Value::Error(text) if is_passing(text) => return Err(lossy(text)),
        Value::Error(_) => {}
        listed => {
            let age = listed.str().and_then(age);
            if age.is_none_or(|age| age + AGE_STEP < connection.since.get().elapsed()) {
                return Ok(Look::Gone);
            }
        }
    }
    match control.ask(&["CLIENT", "KILL", "ID", &id]).await.map_err(|error| error.why)? {
        Value::Integer(_) => Ok(Look::Gone),
        Value::Error(text) if is_passing(&text) => Err(lossy(&text)),
        Value::Error(text) => Ok(Look::Hidden(lossy(&text))),
        _ => Ok(Look::Hidden(says::ODD_REPLIES.to_owned())),
    }
}

/// Whether a node will answer otherwise when it has done what it is at.
fn is_passing(error: &[u8]) -> bool {
    error.starts_with(b"BUSY ") || error.starts_with(b"LOADING ")
}

/// How long a client has been there, by its line of CLIENT LIST; `None` where the list is empty.
fn age(list: &str) -> Option<Duration> {
    let age = list.split_whitespace().find_map(|field| field.strip_prefix("age="))?;
    age.parse().ok().map(Duration::from_secs)
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(id: &str) -> Rc<Connection> {
        let node = Node::primary(id, id);
        let ender = Ender::new(Login::default(), Dialer::default());
        Connection::new(node, ender)
    }

    #[test]
    fn what_is_given_up_is_in_doubt_until_its_reply_comes() {
        let (one, other) = (connection("one"), connection("other"));
        let doubts = Doubts::default();
        assert!(doubts.is_empty());
        one.gives_up_one();
        one.gives_up_one();
        doubts.add(&one);
        doubts.add(&one);
        // By the same connection it is in order, and at another node it is another's.
        assert_eq!(doubts.hold(&one.node, Some(&one)), None);
        assert_eq!(doubts.hold(&other.node, None), None);
        assert!(doubts.hold(&one.node, None).is_some());
        one.hears_late();
        let held = doubts.hold(&one.node, None).expect("one is still owed");
        assert!(!held.busy && held.error.contains("not sent"), "{held:?}");
        one.hears_late();
        assert_eq!(doubts.hold(&one.node, None), None);
        assert!(doubts.is_empty());
    }

    #[test]
    fn a_lost_connection_is_in_doubt_until_its_node_has_ended_it() {
        let lost = connection("lost");
        lost.lost.set(Some(Instant::now()));
        assert!(!lost.is_over());
        lost.hears_late();
        assert!(!lost.is_over());
        lost.ended.set(true);
        assert!(lost.is_over());
    }

    #[test]
    fn ages_are_read_from_client_list() {
        assert_eq!(
            age("id=7 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=8 name= age=12 idle=0 flags=N\n"),
            Some(Duration::from_secs(12))
        );
        assert_eq!(age(""), None);
    }
}
