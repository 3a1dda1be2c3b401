//! A transaction on a connection of its own.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;

use super::Transaction;
use crate::{
    cluster::{
        recovery::Why,
        refusal::{self, Refusal},
    },
    protocol::{resp::write, says},
    session::{
        attempts::Attempts,
        scripts::{awaits_functions, give},
        streamed::Streamed,
        watch::Watch,
    },
    upstream::{dedicated::Dedicated, router::Router, ticket::Line},
};

/// Runs a transaction where its keys are watched. Where the node did not execute it, its keys may have changed since:
/// the client is told so, as if they had been touched. `giver` loads its scripts, where the client's user may not.
pub(super) async fn exec_watched(
    watch: Watch,
    transaction: Rc<Transaction>,
    line: Rc<Line>,
    touched: Bytes,
    patience: Duration,
    retry_timeout: Duration,
    giver: Option<Rc<Router>>,
) -> Streamed {
    let prefix = watch.prefix();
    let Some(connection) = watch.into_connection() else { return Streamed::whole(touched) };
    let mut connection = connection.on_behalf_of(&line.doubts);
    if let Err(text) = line.doubts.settled(connection.node(), None, retry_timeout).await {
        return Streamed::whole(not_sent(text));
    }
    if let Some(router) = &giver {
        give(router, connection.node(), &transaction.frames).await;
    }
    match run(&mut connection, &transaction, prefix, &line, patience).await {
        // EXEC has ended the watching, whether it ran the transaction or gave it up.
        Ok(Run::Done(reply, last)) if reply.first() != Some(&b'-') || reply.starts_with(b"-EXECABORT") => {
            Streamed::new(reply, last, connection)
        }
        Ok(Run::Done(reply, _)) => Streamed::whole(reply),
        // The node may still be watching, or not.
        Ok(Run::Refused(..)) => Streamed::whole(touched),
        Err(text) => Streamed::whole(write::error_frame(&text)),
    }
}

/// Runs a transaction on some connection of its own: once, or not at all.
pub(super) async fn exec_apart(
    mut attempts: Attempts,
    transaction: Rc<Transaction>,
    line: Rc<Line>,
    patience: Duration,
    giver: Option<Rc<Router>>,
) -> Streamed {
    loop {
        let mut connection = match attempts.connect().await {
            Ok(connection) => connection,
            Err(text) => return Streamed::whole(not_sent(text)),
        };
        let waits = awaits_functions(&attempts.router, connection.node()).filter(|_| transaction.functions);
        if let Some(why) = waits {
            connection.give_back();
            match attempts.again(why).await {
                Ok(()) => continue,
                Err(text) => return Streamed::whole(write::error_frame(&text)),
            }
        }
        if let Some(router) = &giver {
            give(router, connection.node(), &transaction.frames).await;
        }
        let why: Why = match run(&mut connection, &transaction, attempts.prefix(), &line, patience).await {
            Ok(Run::Done(reply, last)) => return Streamed::new(reply, last, connection),
            Ok(Run::Refused(refusal, said)) => {
                let why = attempts.refused(refusal, said, connection.node());
                connection.give_back();
                why
            }
            Err(text) => return Streamed::whole(write::error_frame(&text)),
        };
        if let Err(text) = attempts.again(why).await {
            return Streamed::whole(write::error_frame(&text));
        }
    }
}

/// The error for a transaction of which nothing was sent. A busy node aborts it, as Redis has it.
fn not_sent(text: String) -> Bytes {
    write::error_frame(&if text.starts_with("BUSY ") { says::exec_aborted(&text) } else { text })
}

enum Run {
    /// EXEC's own reply: its front, and whether that is all.
    Done(Bytes, bool),
    /// Nothing ran.
    Refused(Refusal, Bytes),
}

async fn run(
    connection: &mut Dedicated,
    transaction: &Transaction,
    prefix: &[u8],
    line: &Line,
    patience: Duration,
) -> Result<Run, String> {
    let before = transaction.replies() - 1 + usize::from(!prefix.is_empty());
    let replies = connection.exchange_up_to(&transaction.batch(prefix), before, patience).await;
    if transaction.writes {
        line.wrote(connection.node());
    }
    let (before, front, last) = replies.map_err(|why| {
        connection.count_failure(&why);
        says::transaction_lost(&connection.node().label, why)
    })?;
    // EXECABORT only says that a command was refused; the first error says why.
    let fault = before.into_iter().skip(transaction.loads.len()).find(|reply| reply.first() == Some(&b'-'));
    let fault = fault.filter(|_| front.starts_with(b"-EXECABORT"));
    let said = fault.as_ref().unwrap_or(&front);
    Ok(match Refusal::of(said) {
        Some(refusal) => Run::Refused(refusal, said.clone()),
        None => match fault.and_then(|fault| refusal::abort_because(&front, &fault)) {
            Some(abort) => Run::Done(abort.into(), last),
            None => Run::Done(front, last),
        },
    })
}

pub(super) fn stand_ins(count: usize) -> Bytes {
    let mut out = Vec::new();
    write::array(&mut out, count);
    out.extend(std::iter::repeat_n(b"+PONG\r\n", count).flatten());
    out.into()
}
