//! BLPOP and the like: commands that may wait, each on a warm connection of its own.
//!
//! The wait ends with the node's reply, or with the client: when it leaves, its node connection is closed at once, so
//! that nothing is popped for nobody. Where the node says that it did not execute the command (its slot has moved, it
//! has become a replica), the command goes to the next with the time that is left. Where the connection is lost, what
//! only reads goes again; anything else may have run, and its client is told so.
//!
//! CLIENT UNBLOCK and a draining proxy do not close the connection but ask the node to end the wait: what was popped in
//! the last moment still reaches the client.

mod interrupt;
mod watchdog;

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub(super) use self::interrupt::{Blocked, Interrupt, told};
use self::watchdog::Watchdog;
use super::{attempts::Attempts, caller::Caller, streamed::Streamed};
use crate::{
    clients::{Client, Unblock},
    cluster::{
        recovery::Why,
        refusal::{Later, Refusal},
        topology::Node,
    },
    commands::{
        plan::{self, Blocking, Unit},
        table::{Spec, Treatment, keys},
    },
    protocol::{
        resp::{Request, Value, write},
        says,
    },
    upstream::{dedicated::Dedicated, router::Router, ticket::Line},
};

/// The shortest time that a command is sent again with: a node then looks once more, and says itself that it is over.
const LAST_LOOK: Duration = Duration::from_millis(1);
/// After so long a wait, a refusal is not one more of a row.
const SETTLED: Duration = Duration::from_secs(1);
const CLIENT_ID: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";

/// Carries out a command that may wait. What it brings is passed on as the client reads it: it has been taken from its
/// key, and must not be lost for want of room. `None` where the proxy ends and the client has to go.
pub(super) async fn run(
    caller: Caller,
    request: &Request<'_>,
    spec: Option<&Spec>,
    blocking: Blocking,
) -> Option<Streamed> {
    BlockedCall::new(&caller, *request, spec, blocking).run().await
}

/// One blocking command on its way.
struct BlockedCall<'a> {
    attempts: Attempts,
    client: Arc<Client>,
    line: Rc<Line>,
    request: Request<'a>,
    /// The command only reads, so that it may be sent again though it may have run.
    repeatable: bool,
    /// The client's user may ask what the proxy has to know.
    trusted: bool,
    resp3: bool,
    timeout: Option<(usize, Unit)>,
    /// When its own timeout is over; `None`: never.
    deadline: Option<Instant>,
    /// Arguments that are `$` (XREAD: from now on), in their order, with their keys and what they stood for the first
    /// time.
    news: Vec<FromNow>,
    sent: bool,
    /// Once a node has the command, and not before: who sees a client blocked may count on what it waits for.
    blocked: Option<Blocked>,
}

struct FromNow {
    key: usize,
    at: usize,
    id: Option<Bytes>,
}

/// How one attempt ended.
enum Outcome {
    /// With the command's own reply: its front, and whether that is all.
    Answered(Bytes, bool),
    /// The node did not execute it.
    Refused(Why),
    /// The node never had the whole of it; the connection is of no more use.
    Unsent(Why),
    /// The connection is of no more use, the command may have run: the node, and what happened.
    Lost(String),
    /// As it was told, without having been executed.
    Ended(Interrupt),
}

impl<'a> BlockedCall<'a> {
    fn new(caller: &Caller, request: Request<'a>, spec: Option<&Spec>, blocking: Blocking) -> BlockedCall<'a> {
        let Blocking { slot, timeout, .. } = blocking;
        let time = timeout.and_then(|(at, unit)| duration(request.arg(at), unit)).filter(|time| !time.is_zero());
        let streams = spec.filter(|spec| is_xread(spec)).and_then(|_| keys::streams(&request));
        let news = streams.map_or_else(Vec::new, |streams| {
            let count = streams.keys.len();
            let pairs = streams.keys.map(|key| (key, key + count));
            pairs.filter(|&(_, at)| request.arg(at) == b"$").map(|(key, at)| FromNow { key, at, id: None }).collect()
        });
        BlockedCall {
            attempts: caller.attempts(slot),
            client: caller.client.clone(),
            line: caller.line.clone(),
            request,
            repeatable: spec.is_some_and(Spec::is_readonly),
            trusted: caller.is_trusted(),
            resp3: caller.speaks_resp3(),
            timeout,
            deadline: time.and_then(|time| Instant::now().checked_add(time)),
            news,
            sent: false,
            blocked: None,
        }
    }

    async fn run(mut self) -> Option<Streamed> {
        let client = self.client.clone();
        loop {
            let mut connection = tokio::select! {
                biased;
                told = told(&client) => return told.reply(self.resp3).map(Streamed::whole),
                connection = self.attempts.connect() => match connection {
                    Ok(connection) => connection,
                    Err(text) => return Some(Streamed::whole(write::error_frame(&text))),
                },
            };
            let why = match self.wait_on(&mut connection).await {
                Outcome::Answered(front, last) => {
                    self.wrote(connection.node());
                    return Some(Streamed::new(front, last, connection));
                }
                Outcome::Refused(why) => {
                    connection.give_back();
                    why
                }
                Outcome::Unsent(why) => why,
                Outcome::Ended(told) => return told.reply(self.resp3).map(Streamed::whole),
                Outcome::Lost(why) => {
                    let node = connection.node().clone();
                    self.wrote(&node);
                    drop(connection);
                    let lost = self.attempts.lost(&node, &why);
                    if !self.repeatable {
                        let error = says::may_have_run(&lost.last_error());
                        return Some(Streamed::whole(write::error_frame(error)));
                    }
                    lost
                }
            };
            tokio::select! {
                biased;
                told = told(&client) => return told.reply(self.resp3).map(Streamed::whole),
                again = self.attempts.again(why) => if let Err(text) = again {
                    return Some(Streamed::whole(write::error_frame(&text)));
                },
            }
        }
    }

    /// The node has executed the command, or may have.
    fn wrote(&self, node: &Arc<Node>) {
        if !self.repeatable {
            self.line.wrote(node);
        }
    }

    /// Sends the command and waits for its reply.
    async fn wait_on(&mut self, connection: &mut Dedicated) -> Outcome {
        let node = connection.node().clone();
        let patience = self.attempts.router.timeouts().node_timeout();
        let asks_id = self.trusted && connection.id().is_none();
        let asks_news = self.trusted && self.news.iter().any(|news| news.id.is_none());
        if !self.trusted {
            self.learn_last_ids(&node).await;
        }
        let frames = self.frames(asks_id, asks_news);
        match tokio::time::timeout(patience, connection.send(&frames)).await {
            // How long it may wait is up to the client: a slow node would not be told from a patient client.
            Ok(Ok(asked)) => drop(asked),
            // The command stands last, so that the node does not have the whole of it.
            Ok(Err(error)) => return Outcome::Unsent(self.attempts.lost(&node, &error.to_string())),
            Err(_) => return Outcome::Unsent(self.attempts.lost(&node, "it takes nothing")),
        }
        self.sent = true;
        let tally = self.attempts.router.tally();
        self.blocked.get_or_insert_with(|| Blocked::new(self.client.clone(), tally.clone()));
        let sent = Instant::now();
        if let Err(error) = self.take_preliminaries(connection, asks_id, asks_news, patience).await {
            return Outcome::Lost(error.to_string());
        }
        let mut watch = Watchdog::new(&self.attempts, self.deadline, patience);
        let mut asked = None;
        let client = self.client.clone();
        loop {
            let piece = tokio::select! {
                biased;
                piece = connection.piece() => piece,
                told = told(&client), if asked.is_none() => {
                    let Some(id) = connection.id() else { return Outcome::Ended(told) };
                    asked = Some(told);
                    watch.hurries(Instant::now() + patience);
                    let how = if told == Interrupt::Unblock(Unblock::Timeout) { "TIMEOUT" } else { "ERROR" };
                    tokio::task::spawn_local(unblock(self.attempts.router.clone(), node.clone(), id, how));
                    continue;
                }
                why = watch.alarm(&node) => return Outcome::Lost(why),
            };
            let (front, last) = match piece {
                Ok((push, true)) if push.first() == Some(&b'>') => continue,
                Ok(piece) => piece,
                Err(error) => return Outcome::Lost(error.to_string()),
            };
            if sent.elapsed() >= SETTLED {
                self.attempts.fares_well();
            }
            return self.judge(connection, (front, last), asked);
        }
    }

    fn judge(&self, connection: &Dedicated, (reply, last): (Bytes, bool), asked: Option<Interrupt>) -> Outcome {
        if let (Some(Interrupt::Drain), Some(b'-')) = (asked, reply.first()) {
            return Outcome::Ended(Interrupt::Drain);
        }
        let forced = reply.strip_prefix(b"-").is_some_and(|text| text.starts_with(says::FORCED_UNBLOCK.as_bytes()));
        // The node has become a replica, and says so in words of its own to those who wait.
        let refusal = if forced { Some(Refusal::Later(Later::ReadOnly)) } else { Refusal::of(&reply) };
        match (refusal, asked) {
            (None, _) => Outcome::Answered(reply, last),
            (Some(_), Some(told)) => Outcome::Ended(told),
            (Some(refusal), None) => Outcome::Refused(self.attempts.refused(refusal, reply, connection.node())),
        }
    }

    /// All that is sent in one write: what has to be known first, and the command.
    fn frames(&self, asks_id: bool, asks_news: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if asks_id {
            out.extend_from_slice(CLIENT_ID);
        }
        // What `$` stands for has to be kept: on another connection it would mean a later now, and pass over what
        // came in between.
        for news in self.news.iter().filter(|news| asks_news && news.id.is_none()) {
            out.extend_from_slice(self.attempts.prefix());
            write::request::<&[u8]>(&mut out, &[b"XINFO", b"STREAM", self.request.arg(news.key)]);
        }
        out.extend_from_slice(self.attempts.prefix());
        if !self.sent {
            out.extend_from_slice(self.request.frame());
            return out;
        }
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).max(LAST_LOOK));
        write::request_head(&mut out, self.request.len());
        let mut news = self.news.iter().peekable();
        for (index, arg) in self.request.args().enumerate() {
            let id = news.next_if(|news| news.at == index).and_then(|news| news.id.as_ref());
            match (id, self.timeout, left) {
                (Some(id), ..) => write::bulk(&mut out, id),
                (_, Some((at, unit)), Some(left)) if at == index => {
                    write::bulk(&mut out, time_left(left, unit).as_bytes())
                }
                _ => write::bulk(&mut out, arg),
            }
        }
        out
    }

    /// Asks the node what `$` stands for, by the proxy's own login: just before the command, which may therefore find, when
    /// it goes again, what came in between.
    async fn learn_last_ids(&mut self, node: &Arc<Node>) {
        let router = self.attempts.router.clone();
        let (timeouts, prefix) = (router.timeouts(), self.attempts.prefix());
        let asking = usize::from(self.attempts.asks());
        for news in self.news.iter_mut().filter(|news| news.id.is_none()) {
            let lane = router.first_lane();
            let Ok(mut connection) = lane.pool().take(node).await else { return };
            let mut frames = prefix.to_vec();
            write::request::<&[u8]>(&mut frames, &[b"XINFO", b"STREAM", self.request.arg(news.key)]);
            let Ok(replies) = connection.exchange(&frames, 1 + asking, timeouts.request_timeout()).await else {
                return;
            };
            connection.give_back();
            news.id = replies.last().and_then(|reply| last_id(reply));
        }
    }

    /// Takes the replies to what stood in front of the command.
    async fn take_preliminaries(
        &mut self,
        connection: &mut Dedicated,
        asks_id: bool,
        asks_news: bool,
        patience: Duration,
    ) -> std::io::Result<()> {
        let asking = usize::from(self.attempts.asks());
        let unknown = self.news.iter_mut().filter(|news| asks_news && news.id.is_none());
        let take = async {
            if asks_id && let Some(id) = value(&connection.reply().await?).integer() {
                connection.is_known_as(id);
            }
            for news in unknown {
                for _ in 0..asking {
                    connection.reply().await?;
                }
                news.id = last_id(&connection.reply().await?);
            }
            for _ in 0..asking {
                connection.reply().await?;
            }
            Ok(())
        };
        tokio::time::timeout(patience, take).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

/// Ends the wait of the node's client `id`, by the proxy's own login: the client's may not be allowed to.
async fn unblock(router: Rc<Router>, node: Arc<Node>, id: i64, how: &'static str) {
    let lane = router.first_lane();
    let timeouts = router.timeouts();
    let Ok(mut connection) = lane.pool().take(&node).await else { return };
    let mut frame = Vec::new();
    write::request(&mut frame, &["CLIENT", "UNBLOCK", &id.to_string(), how]);
    if connection.exchange(&frame, 1, timeouts.node_timeout()).await.is_ok() {
        connection.give_back();
    }
}

fn duration(text: &[u8], unit: Unit) -> Option<Duration> {
    match unit {
        Unit::Seconds => Duration::try_from_secs_f64(plan::seconds(text)?).ok(),
        Unit::Milliseconds => std::str::from_utf8(text).ok()?.parse().ok().map(Duration::from_millis),
    }
}

fn time_left(left: Duration, unit: Unit) -> String {
    match unit {
        Unit::Seconds => format!("{:.3}", left.as_secs_f64()),
        Unit::Milliseconds => left.as_millis().max(1).to_string(),
    }
}

/// The last id of a stream, from the reply to XINFO STREAM; `None` where that was not told.
fn last_id(reply: &[u8]) -> Option<Bytes> {
    match value(reply) {
        Value::Error(text) if text.starts_with(b"ERR no such key") => Some(Bytes::from_static(b"0-0")),
        value => value.field("last-generated-id")?.text().map(Bytes::copy_from_slice),
    }
}

fn value(reply: &[u8]) -> Value {
    Value::parse(reply).ok().flatten().map_or(Value::Null, |(value, _)| value)
}

/// Whether it is XREAD: XREADGROUP, which waits for streams as well, writes.
fn is_xread(spec: &Spec) -> bool {
    spec.treatment == Treatment::BlockingStreams && spec.is_readonly()
}

#[cfg(test)]
mod tests;
