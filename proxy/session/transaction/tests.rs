//! A transaction runs at a node without a session: with a caller, and what it has queued.

use super::*;
use crate::{
    commands::plan,
    session::watch,
    upstream::router::scripted::{Scripted, frame, request, within_a_minute},
};

/// What these commands of a caller queue, EXEC included.
fn queued(caller: &Caller, multi: &mut Multi, commands: &[&str]) -> Rc<Transaction> {
    let topology = caller.router.topology().clone();
    multi.begin(caller, &request("MULTI").as_request());
    for words in commands {
        let words = request(words);
        let words = words.as_request();
        let spec = topology.commands.find(&words);
        let plan = plan::plan(&words, spec, &caller.router.settings().policy);
        multi.enqueue(caller, &words, spec, plan).expect("it is queued");
    }
    let mut transaction = multi.take(caller).expect("a transaction");
    transaction.close(&request("EXEC").as_request());
    Rc::new(transaction)
}

async fn runs(caller: &Caller, transaction: &Rc<Transaction>, watch: Option<Watch>) -> String {
    let reply = carry_out(caller.clone(), transaction.clone(), watch, None, false, None).await;
    String::from_utf8_lossy(reply.front()).into_owned()
}

fn batch() -> Vec<u8> {
    [frame("MULTI"), frame("INCR foo"), frame("EXEC")].concat()
}

#[tokio::test(start_paused = true)]
async fn a_transaction_goes_again_where_its_slot_has_moved() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let caller = Caller::of(&nodes);
        let transaction = queued(&caller, &mut Multi::default(), &["INCR foo"]);
        let nodes = async {
            // `foo` is in slot 12182, of the second node.
            let mut old = nodes.node(1).await;
            old.hears(&batch()).await;
            let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
            old.says(format!("+OK\r\n-MOVED 12182 127.0.0.1:7000\r\n{aborted}").as_bytes()).await;
            let mut new = nodes.node(0).await;
            new.hears(&batch()).await;
            new.says(b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n").await;
            (old, new)
        };
        let (reply, _nodes) = tokio::join!(runs(&caller, &transaction, None), nodes);
        assert_eq!(reply, "*1\r\n:1\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_may_have_run_is_an_error() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let caller = Caller::of(&nodes);
        let transaction = queued(&caller, &mut Multi::default(), &["INCR foo"]);
        let node = async {
            let mut node = nodes.node(0).await;
            node.hears(&batch()).await;
        };
        let (reply, ()) = tokio::join!(runs(&caller, &transaction, None), node);
        assert!(reply.starts_with("-ERR proxy: ") && reply.contains("the transaction may have run"), "{reply}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_watched_transaction_takes_the_connection_that_watches() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let (caller, words) = (Caller::of(&nodes), request("WATCH foo"));
        let topology = nodes.router.topology().clone();
        let spec = topology.commands.find(&words.as_request());
        let transaction = queued(&caller, &mut Multi::default(), &["INCR foo"]);
        let node = async {
            let mut node = nodes.node(0).await;
            node.hears(&frame("WATCH foo")).await;
            node.says(b"+OK\r\n").await;
            node.hears(&batch()).await;
            node.says(b"+OK\r\n+QUEUED\r\n*-1\r\n").await;
            node
        };
        let client = async {
            let (_, watched) = watch::watch(caller.clone(), None, &words.as_request(), spec).await;
            runs(&caller, &transaction, watched).await
        };
        let (reply, _node) = tokio::join!(client, node);
        assert_eq!(reply, "*-1\r\n", "a key was touched");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_proxy_answers_alone_takes_no_node() {
    within_a_minute(async {
        let caller = Caller::of(&Scripted::new(1));
        let transaction = queued(&caller, &mut Multi::default(), &["CLIENT ID", "WAIT 0 0"]);
        assert!(!transaction.needs_node(false) && transaction.needs_node(true));
        assert_eq!(runs(&caller, &transaction, None).await, "*2\r\n+PONG\r\n+PONG\r\n");
    })
    .await;
}
