//! What nodes say of a user, and what follows from it. `bob` is not the proxy's own user.

use tokio::task::{JoinHandle, spawn_local};

use super::*;
use crate::upstream::{
    dial::{Credentials, Login},
    router::scripted::{Scripted, frame, request, within_a_minute},
    transport::memory::Peer,
};

const GETUSER: &str = "ACL GETUSER bob";
/// What a node says that has no such user.
const NOBODY: &str = "*-1\r\n";
const BUSY: &str = "-BUSY Redis is busy running a script.\r\n";
const CLOSED: &str = "-NOPERM this user has no permissions to run the 'acl|getuser' command\r\n";

fn bob(nodes: &Scripted) -> Caller {
    let bob = Credentials { username: Some("bob".into()), secret: "secret".into() };
    let login = Login { credentials: Some(bob), ..Login::default() };
    let mut caller = Caller::of(nodes);
    (caller.user, caller.lane) = (nodes.router.user_of(&login), nodes.router.lane(&login));
    // The first node is asked first.
    caller.affinity = 0;
    caller
}

fn judges(caller: &Caller, words: &str) -> JoinHandle<Judged> {
    let (caller, request) = (caller.clone(), request(words));
    spawn_local(async move { judge(&caller, request).await })
}

/// A node's reply to ACL GETUSER of a user who may run these commands, with any keys.
fn rules_of(commands: &str) -> String {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let fields = ["commands", commands, "keys", "~*", "channels", "&*"].map(bulk);
    format!("*6\r\n{}", fields.concat())
}

/// A node is asked this, and says that.
async fn says(node: &mut Peer, asked: &str, said: &str) {
    node.hears(&frame(asked)).await;
    node.says(said.as_bytes()).await;
}

fn verdict(judged: Judged) -> Verdict {
    match judged {
        Judged::Verdict(verdict) => verdict,
        Judged::NoUser => panic!("the user is there"),
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_do_all_is_not_judged_by_the_request() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let caller = bob(&nodes);
        let judging = judges(&caller, "CLIENT KILL ID 7");
        let mut node = nodes.node(0).await;
        says(&mut node, GETUSER, &rules_of("+@all")).await;
        assert_eq!(verdict(judging.await.unwrap()), Ok(()));
        assert!(caller.user.is_free(Instant::now()), "it is known from now on");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_what_a_user_may_do() {
    const REFUSED: &str = "NOPERM this user has no permissions to run the 'client|kill' command";
    within_a_minute(async {
        for (said, expected) in [
            ("+OK\r\n", Ok(())),
            ("$61\r\nThis user has no permissions to run the 'client|kill' command\r\n", Err(REFUSED)),
            // This node does not know the command, and none will run it.
            ("-ERR Command 'client' not found\r\n", Ok(())),
        ] {
            let mut nodes = Scripted::new(1);
            let judging = judges(&bob(&nodes), "CLIENT KILL ID 7");
            let mut node = nodes.node(0).await;
            says(&mut node, GETUSER, &rules_of("+@all -client|kill")).await;
            says(&mut node, "ACL DRYRUN bob CLIENT KILL ID 7", said).await;
            assert_eq!(verdict(judging.await.unwrap()), expected.map_err(Bytes::from), "{said}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_tell_leaves_it_to_the_next() {
    within_a_minute(async {
        for said in [BUSY, "", NOBODY] {
            let mut nodes = Scripted::new(2);
            let judging = judges(&bob(&nodes), "CLIENT LIST");
            let mut first = nodes.node(0).await;
            // It may say nothing at all.
            says(&mut first, GETUSER, said).await;
            let mut second = nodes.node(1).await;
            says(&mut second, GETUSER, &rules_of("+@all")).await;
            assert_eq!(verdict(judging.await.unwrap()), Ok(()), "{said}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_user_is_gone_where_most_nodes_say_so() {
    within_a_minute(async {
        for (said, is_gone) in [([NOBODY, NOBODY, BUSY], true), ([NOBODY, BUSY, BUSY], false)] {
            let mut nodes = Scripted::new(3);
            let caller = bob(&nodes);
            let judging = judges(&caller, "CLIENT LIST");
            for (index, said) in (0..).zip(said) {
                says(&mut nodes.node(index).await, GETUSER, said).await;
            }
            match judging.await.unwrap() {
                Judged::NoUser => assert!(is_gone),
                Judged::Verdict(verdict) => {
                    let error = verdict.expect_err("nobody knows what it may do");
                    assert!(!is_gone && error.starts_with(b"ERR proxy: "), "{error:?}");
                }
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_nobody_tells_anything_the_proxy_s_own_user_goes_on_and_others_do_not() {
    within_a_minute(async {
        let nodes = Scripted::new(1);
        nodes.router.rights().forget();
        let mut unknown = nodes.topology.borrow().with_layout(Vec::new(), Box::new([u16::MAX; 16384]));
        unknown.epoch = 9;
        nodes.topology.send_replace(unknown.into());
        nodes.router.refresh();
        assert_eq!(verdict(judges(&Caller::of(&nodes), "CLIENT LIST").await.unwrap()), Ok(()));
        assert!(verdict(judges(&bob(&nodes), "CLIENT LIST").await.unwrap()).is_err());
    })
    .await;
}

/// A node lets bob in.
async fn lets_in(nodes: &mut Scripted) -> Peer {
    let mut node = nodes.dialled(0).await;
    node.hears(&[frame("AUTH bob secret"), frame("HELLO 2")].concat()).await;
    node.says(b"+OK\r\n*2\r\n$2\r\nid\r\n:7\r\n").await;
    node
}

#[tokio::test(start_paused = true)]
async fn where_the_proxy_may_not_ask_a_node_queues_the_request_for_its_user() {
    const NOPERM: &str = "NOPERM this user has no permissions to run the 'client|kill' command";
    within_a_minute(async {
        for (said, expected) in [
            ("+QUEUED\r\n".to_owned(), Ok(())),
            (format!("-{NOPERM}\r\n"), Err(NOPERM)),
            ("-ERR unknown command\r\n".to_owned(), Ok(())),
        ] {
            let mut nodes = Scripted::new(1);
            let caller = bob(&nodes);
            let judging = judges(&caller, "CLIENT KILL ID 7");
            says(&mut nodes.node(0).await, GETUSER, CLOSED).await;
            let mut node = lets_in(&mut nodes).await;
            says(&mut node, "MULTI", "+OK\r\n").await;
            says(&mut node, "CLIENT KILL ID 7", &said).await;
            says(&mut node, "DISCARD", "+OK\r\n").await;
            assert_eq!(verdict(judging.await.unwrap()), expected.map_err(Bytes::from), "{said}");
            assert!(!nodes.router.rights().may_ask(Instant::now()), "it is not asked again: each try is logged");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_nothing_tells_only_what_is_about_other_clients_is_refused() {
    within_a_minute(async {
        for (words, is_refused) in [("CLIENT KILL ID 7", true), ("CLUSTER KEYSLOT a", false)] {
            let mut nodes = Scripted::new(1);
            let judging = judges(&bob(&nodes), words);
            says(&mut nodes.node(0).await, GETUSER, CLOSED).await;
            let mut node = lets_in(&mut nodes).await;
            // Nothing may be queued, so that the request itself must not be sent.
            says(&mut node, "MULTI", "-NOPERM this user has no permissions to run the 'multi' command\r\n").await;
            let expected = if is_refused { Err(Bytes::from(says::MAY_NOT_ASK)) } else { Ok(()) };
            assert_eq!(verdict(judging.await.unwrap()), expected, "{words}");
            assert_eq!(node.hears_the_end().await, b"");
        }
    })
    .await;
}
