//! CLIENT PAUSE, as a session meets it: it dispatches nothing more until the pause is over, and reads on only to see
//! whether its client leaves.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Sleep;

use super::{ask::ask, blocking::Blocked, caller::Caller, local::Answer, transaction::Transaction};
use crate::{
    clients::{Function, Pause, Paused},
    cluster::topology::Route,
    commands::{
        database::Scope,
        scripts::ScriptCache,
        table::{
            Spec, Treatment,
            treatment::{Local, Scripting},
        },
    },
    metrics::readable::unix_time,
    protocol::{
        resp::{Request, Value, request::decimal, write},
        says,
    },
    upstream::router::Router,
};

/// A session's part in a pause.
pub(super) struct PauseWait {
    over: Pin<Box<dyn Future<Output = ()>>>,
    pub(super) look: Option<Pin<Box<Sleep>>>,
    /// None while it is being found out whether the request has to wait.
    _blocked: Option<Blocked>,
}

/// What a pause of writes is to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhilePaused {
    Runs,
    Waits,
    /// A node has to say whether the function that is called may write.
    Ask,
}

impl WhilePaused {
    fn waits_if(waits: bool) -> WhilePaused {
        if waits { WhilePaused::Waits } else { WhilePaused::Runs }
    }

    /// Of several requests that wait together.
    fn and(self, other: WhilePaused) -> WhilePaused {
        match (self, other) {
            (WhilePaused::Waits, _) | (_, WhilePaused::Waits) => WhilePaused::Waits,
            (WhilePaused::Ask, _) | (_, WhilePaused::Ask) => WhilePaused::Ask,
            (WhilePaused::Runs, WhilePaused::Runs) => WhilePaused::Runs,
        }
    }
}

impl PauseWait {
    /// Ready when the pause is over, or has changed.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.over.as_mut().poll(cx)
    }
}

/// The wait of a request for the end of a pause, where it has to wait. Not where it is not even well formed: that is said
/// at once.
pub(super) fn wait_of(
    caller: &Caller,
    queued: Option<&Transaction>,
    request: &Request<'_>,
    spec: Option<&Spec>,
) -> Option<Box<PauseWait>> {
    let router = &caller.router;
    let (pause, scope) = (router.clients().pause(), caller.databases.scope());
    let (who, _) = pause.now(scope)?;
    let spec = spec.filter(|spec| spec.takes(request.len()) && !spec.container)?;
    if spec.treatment == Treatment::Local(Local::Quit) {
        return None;
    }
    let verdict = match (who, queued) {
        (Paused::All, _) => WhilePaused::Waits,
        (Paused::Writes, Some(transaction)) if spec.treatment == Treatment::Local(Local::Exec) => {
            judge_queued(transaction, router)
        }
        (Paused::Writes, _) => judge(spec, request, router.scripts(), pause),
    };
    let (over, blocked): (Pin<Box<dyn Future<Output = ()>>>, _) = match verdict {
        WhilePaused::Runs => return None,
        WhilePaused::Waits => {
            let blocked = Blocked::by_pause(caller.client.clone(), router.tally().clone());
            (Box::pin(pause.over(scope)), Some(blocked))
        }
        WhilePaused::Ask => (Box::pin(learn_functions(router.clone(), scope)), None),
    };
    Some(Box::new(PauseWait { over, look: None, _blocked: blocked }))
}

/// `CLIENT PAUSE milliseconds [WRITE|ALL]`
pub(super) fn begin(caller: &Caller, request: &Request<'_>) -> Answer {
    let who = match request.len() {
        4 if request.is(3, "WRITE") => Paused::Writes,
        4 if !request.is(3, "ALL") => return Answer::refused(says::PAUSE_MODE),
        5.. if caller.dialect().is_strict() => return Answer::refused(says::odd_subcommand(request)),
        // Where there is more, Valkey looks at none of it.
        _ => Paused::All,
    };
    let Some(time) = decimal(request.arg(2)) else {
        return Answer::refused(says::TIMEOUT_NOT_INTEGER);
    };
    let Ok(time) = u64::try_from(time) else { return Answer::refused(says::TIMEOUT_NEGATIVE) };
    if past_all_time(time) {
        // Redis 7.0 adds it to the time of day, and finds that the end was long ago.
        let error = says::TIMEOUT_OUT_OF_RANGE;
        return if caller.dialect().since((7, 2)) { Answer::refused(error) } else { Answer::OK };
    }
    caller.router.clients().pause().begin(caller.databases.scope(), who, Duration::from_millis(time));
    Answer::OK
}

/// Whether a request may change something that replicas or subscribers hear of. What a script or a function says of itself
/// counts for more than by which command it is called, as on a server.
fn judge(spec: &Spec, request: &Request<'_>, scripts: &ScriptCache, pause: &Pause) -> WhilePaused {
    let by_script = |text: Option<&[u8]>, otherwise: bool| {
        let says = text.and_then(promises_no_writes);
        WhilePaused::waits_if(says.map_or(otherwise, |no_writes| !no_writes))
    };
    // EVAL_RO, EVALSHA_RO and FCALL_RO only read.
    let may_write = !spec.is_readonly();
    let otherwise = || WhilePaused::waits_if(spec.is_write() || spec.traits.propagates);
    let Treatment::Scripting(which) = spec.treatment else { return otherwise() };
    match which {
        Scripting::Eval => by_script(request.get(1), may_write),
        Scripting::Evalsha => {
            let script = scripts.find(request.arg(1));
            by_script(script.as_ref().map(|script| &*script.text), may_write)
        }
        Scripting::Fcall => match pause.function(request.arg(1)) {
            Function::NotAsked => WhilePaused::Ask,
            Function::None => WhilePaused::waits_if(may_write),
            Function::Known { no_writes } => WhilePaused::waits_if(!no_writes),
        },
        Scripting::Load | Scripting::Exists | Scripting::Show | Scripting::Flush => otherwise(),
    }
}

/// The same of all that is queued in a transaction.
fn judge_queued(transaction: &Transaction, router: &Router) -> WhilePaused {
    let topology = router.topology();
    let mut all = WhilePaused::Runs;
    transaction.each(|request| {
        if let Some(spec) = topology.commands.find(request) {
            all = all.and(judge(spec, request, router.scripts(), router.clients().pause()));
        }
    });
    all
}

/// Asks a node which functions promise not to write. Where it does not say, the end of the pause is waited for.
async fn learn_functions(router: Rc<Router>, scope: Scope) {
    let mut list = Vec::new();
    write::request(&mut list, &["FUNCTION", "LIST"]);
    let pause = router.clients().pause();
    let over = pause.over(scope);
    let link = router.first_lane().link(&router, 0, Route::Any);
    let reply = match &link {
        Some(link) => ask(&router, link, &list).await.unwrap_or_default(),
        None => Bytes::new(),
    };
    match Value::parse(&reply) {
        Ok(Some((Value::Error(_), _)) | None) | Err(_) => over.await,
        Ok(Some((libraries, _))) => pause.learn(flags_of(&libraries)),
    }
}

/// The functions of a reply to FUNCTION LIST, each with whether it promises not to write.
fn flags_of(libraries: &Value) -> HashMap<Vec<u8>, bool> {
    let functions = libraries.items().iter().filter_map(|library| library.field("functions")).flat_map(Value::items);
    let flags = |function: &Value| {
        let no_writes = function.field("flags")?.items().iter().any(|flag| flag.text() == Some(b"no-writes"));
        Some((function.field("name")?.text()?.to_vec(), no_writes))
    };
    functions.filter_map(flags).collect()
}

/// Whether so many milliseconds from now no server can count.
fn past_all_time(milliseconds: u64) -> bool {
    let now = unix_time(SystemTime::now()).as_millis() as u64;
    milliseconds > i64::MAX as u64 - now
}

/// Whether a script promises not to write, by its first line (`#!lua flags=no-writes`); `None` where it has no such line, or
/// one that servers refuse.
fn promises_no_writes(script: &[u8]) -> Option<bool> {
    const FLAGS: [&[u8]; 5] = [b"no-writes", b"allow-oom", b"allow-stale", b"no-cluster", b"allow-cross-slot-keys"];
    let line = &script[..script.iter().position(|&byte| byte == b'\n')?];
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    if !words.next()?.eq_ignore_ascii_case(b"#!lua") {
        return None;
    }
    let mut no_writes = false;
    for word in words {
        for flag in word.strip_prefix(b"flags=")?.split(|&byte| byte == b',').filter(|flag| !flag.is_empty()) {
            no_writes |= flag == FLAGS[0];
            if !FLAGS.contains(&flag) {
                return None;
            }
        }
    }
    Some(no_writes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::router::scripted::{Scripted, request, within_a_minute};

    #[test]
    fn scripts_say_whether_they_write() {
        for (script, promise) in [
            ("return 1", None),
            ("#!lua", None),
            ("#!lua\nreturn 1", Some(false)),
            ("#!lua flags=no-writes\nreturn 1", Some(true)),
            ("#!lua flags=allow-oom,no-writes \nreturn 1", Some(true)),
            ("#!lua flags=\nreturn 1", Some(false)),
            ("#!lua flags=allow-oom\n-- no-writes", Some(false)),
            ("#!lua flags=nonsense,no-writes\nreturn 1", None),
            ("#!lua no-writes\nreturn 1", None),
            ("#!js flags=no-writes\nreturn 1", None),
        ] {
            assert_eq!(promises_no_writes(script.as_bytes()), promise, "{script}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn writes_wait_for_the_end_of_a_pause_of_writes() {
        within_a_minute(async {
            let caller = Caller::of(&Scripted::new(1));
            let topology = caller.router.topology().clone();
            let wait = |words: &str| {
                let request = request(words);
                wait_of(&caller, None, &request.as_request(), topology.commands.find(&request.as_request()))
            };
            assert!(wait("SET foo 1").is_none(), "nothing is paused");
            let said = begin(&caller, &request("CLIENT PAUSE 100 WRITE").as_request());
            assert!(matches!(said, Answer::Reply(ok) if ok == "+OK\r\n"));
            for (words, waits) in
                [("SET foo 1", true), ("GET foo", false), ("SET foo", false), ("EVAL x 0", true), ("QUIT", false)]
            {
                assert_eq!(wait(words).is_some(), waits, "{words}");
            }
            assert!(!caller.client.waits(), "it does as long as the wait is kept");
            let mut paused = wait("SET foo 1").unwrap();
            assert!(caller.client.waits());
            caller.router.clients().pause().end(Scope::CLUSTER);
            std::future::poll_fn(|cx| paused.poll_over(cx)).await;
            assert!(wait("SET foo 1").is_none());
        })
        .await;
    }
}
