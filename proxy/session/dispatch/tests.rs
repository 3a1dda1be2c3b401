//! What becomes of requests, without a session: a dispatcher, and a line that keeps the replies.

use super::*;
use crate::upstream::router::scripted::{Scripted, frame, request, within_a_minute};

/// What becomes of a request, in a word.
fn say(dispatcher: &mut Dispatcher, words: &str) -> &'static str {
    let (words, topology) = (request(words), dispatcher.caller.router.topology().clone());
    let words = words.as_request();
    let spec = topology.commands.find(&words);
    match dispatcher.dispatch(&words, &topology, spec) {
        Flow::Taken => "taken",
        Flow::Ends(_) => "ends",
        Flow::Settle => "settles",
        Flow::Full => "full",
        Flow::Waits(_) => "waits",
        Flow::Work(_) => "work",
        Flow::Ask => "asks",
    }
}

fn dispatcher(nodes: &Scripted) -> Dispatcher {
    Dispatcher::new(Caller::of(nodes))
}

#[tokio::test(start_paused = true)]
async fn each_request_is_answered_sent_or_has_the_session_for_itself() {
    within_a_minute(async {
        let nodes = Scripted::new(2);
        for (words, becomes, told) in [
            ("PING", "taken", "+PONG\r\n"),
            ("ECHO hello", "taken", "$5\r\nhello\r\n"),
            ("GET foo", "taken", ""),
            ("MGET foo bar", "taken", ""),
            ("GET", "taken", ""),
            ("QUIT", "ends", "+OK\r\n"),
            ("SHUTDOWN", "taken", "-ERR"),
            ("EXEC", "taken", "-ERR EXEC without MULTI\r\n"),
            ("DISCARD", "taken", "-ERR DISCARD without MULTI\r\n"),
            ("MULTI", "taken", "+OK\r\n"),
            ("WATCH foo", "work", ""),
            ("HELLO 3", "work", ""),
            ("SELECT 0", "work", ""),
            ("SUBSCRIBE news", "work", ""),
            ("BLPOP foo 1", "work", ""),
            ("SCAN 0", "work", ""),
            ("KEYS *", "work", ""),
            ("MONITOR", "work", ""),
            ("WAIT 0 0", "work", ""),
            ("CLIENT TRACKING ON", "work", ""),
            ("POST /", "ends", ""),
        ] {
            let mut dispatcher = dispatcher(&nodes);
            assert_eq!(say(&mut dispatcher, words), becomes, "{words}");
            let said = dispatcher.caller.was_told();
            assert!(
                said == told || !told.is_empty() && !told.ends_with('\n') && said.starts_with(told),
                "{words}: {said}"
            );
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_is_carried_out_at_exec_as_one_write() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut dispatcher = dispatcher(&nodes);
        for words in ["MULTI", "INCR foo", "GET foo", "EXEC"] {
            assert_eq!(say(&mut dispatcher, words), "taken", "{words}");
        }
        let mut node = nodes.node(1).await;
        node.hears(&["MULTI", "INCR foo", "GET foo", "EXEC"].map(frame).concat()).await;
        node.says(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n$1\r\n1\r\n").await;
        settled(&dispatcher).await;
        assert_eq!(dispatcher.caller.was_told(), "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n$1\r\n1\r\n");
        assert!(!dispatcher.multi.is_open());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_refused_spoils_its_transaction() {
    within_a_minute(async {
        let mut dispatcher = dispatcher(&Scripted::new(1));
        for words in ["MULTI", "NOSUCH", "INCR foo", "EXEC"] {
            assert_eq!(say(&mut dispatcher, words), "taken", "{words}");
        }
        let told = dispatcher.caller.was_told();
        assert!(told.ends_with("-EXECABORT Transaction discarded because of previous errors.\r\n"), "{told}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_line_holds_back_what_comes_next() {
    within_a_minute(async {
        let mut dispatcher = dispatcher(&Scripted::new(1));
        let most = dispatcher.caller.router.settings().client_window.get();
        let sent = (0..=most).take_while(|_| say(&mut dispatcher, "PUBLISH news it") == "taken").count();
        assert!((1..=most).contains(&sent), "{sent}");
        assert_eq!(say(&mut dispatcher, "PING"), "full");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_dispatched_beside_what_has_bounced() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let mut dispatcher = dispatcher(&nodes);
        assert_eq!(say(&mut dispatcher, "GET foo"), "taken");
        let mut node = nodes.node(0).await;
        node.hears(&frame("GET foo")).await;
        node.says(b"-MOVED 12182 127.0.0.1:7000\r\n").await;
        while !dispatcher.caller.line.has_bounced() {
            tokio::task::yield_now().await;
        }
        assert_eq!(say(&mut dispatcher, "PING"), "settles");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_has_not_logged_in_may_only_log_in() {
    within_a_minute(async {
        let nodes = Scripted::new(1);
        for (words, becomes) in [("GET foo", "taken"), ("PING", "taken"), ("AUTH secret", "work"), ("HELLO 2", "work")]
        {
            let mut dispatcher = dispatcher(&nodes);
            dispatcher.caller.gate = Gate::Closed;
            assert_eq!(say(&mut dispatcher, words), becomes, "{words}");
            let refused = dispatcher.caller.was_told().starts_with("-NOAUTH ");
            assert_eq!(refused, becomes == "taken", "{words}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn parts_and_the_replies_of_all_nodes_become_one() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut dispatcher = dispatcher(&nodes);
        assert_eq!(say(&mut dispatcher, "MGET foo bar"), "taken");
        let (mut first, mut second) = (nodes.node(0).await, nodes.node(1).await);
        first.hears(&frame("MGET bar")).await;
        second.hears(&frame("MGET foo")).await;
        first.says(b"*1\r\n$1\r\nB\r\n").await;
        second.says(b"*1\r\n$1\r\nF\r\n").await;
        settled(&dispatcher).await;
        assert_eq!(dispatcher.caller.was_told(), "*2\r\n$1\r\nF\r\n$1\r\nB\r\n");
        assert_eq!(say(&mut dispatcher, "DBSIZE"), "taken");
        assert_eq!(say(&mut dispatcher, "GET foo"), "settles", "part of it may have to go again");
        for (node, count) in [(&mut first, ":1\r\n"), (&mut second, ":2\r\n")] {
            node.hears(&frame("DBSIZE")).await;
            node.says(count.as_bytes()).await;
        }
        settled(&dispatcher).await;
        assert_eq!(dispatcher.caller.was_told(), ":3\r\n");
    })
    .await;
}

async fn settled(dispatcher: &Dispatcher) {
    while !dispatcher.caller.line.is_settled() {
        tokio::task::yield_now().await;
    }
}
