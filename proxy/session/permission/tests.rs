//! A user of whom nodes are asked.

use tokio::task::spawn_local;

use super::*;
use crate::upstream::{
    dial::{Credentials, Login},
    router::scripted::{Scripted, frame, request, within_a_minute},
};

/// What a node is asked about bob, and says.
const BOB: &str = "commands -@all keys ~* channels &*";

#[tokio::test(start_paused = true)]
async fn a_node_is_asked_about_a_user_of_whom_nothing_is_known() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let mut caller = Caller::of(&nodes);
        let bob = Credentials { username: Some("bob".into()), secret: "secret".into() };
        caller.user = nodes.router.user_of(&Login { credentials: Some(bob), ..Login::default() });
        let (asked, topology) = (request("CLIENT KILL ID 7"), nodes.router.topology().clone());
        let spec = topology.commands.find(&asked.as_request()).unwrap();
        let denial_of = |said: &mut Option<Judgment>| denial(said, &caller, &asked.as_request(), spec, false);
        assert!(matches!(denial_of(&mut None), Some(Denial::Unknown)));

        let asking = spawn_local(ask_about(caller.clone(), asked.clone()));
        let mut node = nodes.node(0).await;
        node.hears(&frame("ACL GETUSER bob")).await;
        node.says(&[b"*6\r\n", &frame(BOB)[4..]].concat()).await;
        node.hears(&frame("ACL DRYRUN bob CLIENT KILL ID 7")).await;
        let said = "This user has no permissions to run the 'client|kill' command";
        node.says(format!("${}\r\n{said}\r\n", said.len()).as_bytes()).await;
        let mut said = asking.await.unwrap();
        let Some(Denial::Refused(error)) = denial_of(&mut said) else { panic!("it is refused") };
        assert!(error.starts_with(b"NOPERM this user has no permissions"), "{error:?}");
        assert!(said.is_none(), "it is of use once");
        assert!(matches!(denial_of(&mut None), Some(Denial::Refused(_))), "it is remembered");
        // What everybody may do is not asked about.
        let hello = request("HELLO");
        let spec = topology.commands.find(&hello.as_request()).unwrap();
        assert!(denial(&mut None, &caller, &hello.as_request(), spec, false).is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_user_that_the_nodes_do_not_have_is_gone() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let mut caller = Caller::of(&nodes);
        let bob = Credentials { username: Some("bob".into()), secret: "secret".into() };
        let login = Login { credentials: Some(bob), ..Login::default() };
        (caller.user, caller.lane) = (nodes.router.user_of(&login), nodes.router.lane(&login));
        let asking = spawn_local(ask_about(caller, request("CLIENT LIST")));
        let mut node = nodes.node(0).await;
        node.hears(&frame("ACL GETUSER bob")).await;
        node.says(b"*-1\r\n").await;
        assert!(asking.await.unwrap().is_none());
    })
    .await;
}
