//! What the links of a tracking client hear, without links.

use super::*;
use crate::{
    session::caller::Caller,
    upstream::{
        dial::DialError,
        router::scripted::{Scripted, within_a_minute},
    },
};

struct Scene {
    nodes: Scripted,
    caller: Caller,
    invalidations: Rc<Invalidations>,
}

impl Scene {
    fn new(resp3: bool, redirect: u64) -> Scene {
        let nodes = Scripted::new(2);
        let caller = Caller::of(&nodes);
        let invalidations = Rc::new(Invalidations {
            line: caller.line.clone(),
            client: caller.client.clone(),
            clients: nodes.router.clients().clone(),
            tally: nodes.router.tally().clone(),
            resp3: Cell::new(resp3),
            database: None,
            broadcast: false,
            redirect: Cell::new(redirect),
            most_mail: 1024,
            closed: Cell::default(),
            begun: Cell::default(),
            opened: RefCell::default(),
            lost: RefCell::default(),
            refused: RefCell::default(),
            waker: Cell::default(),
        });
        Scene { nodes, caller, invalidations }
    }

    fn hear(&self, node: usize, event: PushEvent<'_>) {
        let node = self.nodes.router.topology().nodes[node].clone();
        self.invalidations.hear(&node, event);
    }

    /// Whether all nodes tell, as far as they can be reached; or the error of one that will not.
    fn opened(&self) -> Option<Result<(), String>> {
        let nodes = self.nodes.router.topology().nodes.clone();
        match self.invalidations.poll_opened(&mut Context::from_waker(Waker::noop()), &nodes) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }
}

fn error(permanent: bool) -> DialError {
    let node = "127.0.0.1:7000".parse().unwrap();
    DialError { node, step: crate::upstream::dial::DialStep::Tracking, why: "NOPERM".to_owned(), permanent }
}

const CHANGED: &[u8] = b"*1\r\n$1\r\na\r\n";

#[tokio::test(start_paused = true)]
async fn it_begins_once_each_node_tells_or_is_lost() {
    within_a_minute(async {
        let scene = Scene::new(true, 0);
        assert_eq!(scene.opened(), None);
        scene.hear(0, PushEvent::Opened);
        assert_eq!(scene.opened(), None);
        scene.hear(1, PushEvent::Unreachable(&error(false)));
        assert_eq!(scene.opened(), Some(Ok(())), "the other tells when it is back");
        scene.hear(1, PushEvent::Unreachable(&error(true)));
        assert_eq!(scene.opened(), Some(Err("NOPERM".to_owned())));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_changes_is_passed_on_and_what_may_be_missed_is_forgotten() {
    within_a_minute(async {
        let scene = Scene::new(true, 0);
        scene.hear(0, PushEvent::Said(&[INVALIDATE, CHANGED].concat()));
        scene.hear(0, PushEvent::Said(b">2\r\n+other\r\n+x\r\n"));
        assert_eq!(scene.caller.was_told().as_bytes(), [INVALIDATE, CHANGED].concat());
        scene.hear(0, PushEvent::Lost("reset"));
        assert_eq!(scene.caller.was_told().as_bytes(), [INVALIDATE, b"_\r\n"].concat());
        scene.invalidations.close();
        scene.hear(0, PushEvent::Said(&[INVALIDATE, CHANGED].concat()));
        assert_eq!(scene.caller.was_told(), "", "nobody listens");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_client_is_told_as_long_as_there_is_one() {
    within_a_minute(async {
        let scene = Scene::new(true, 0);
        let other = Caller::of(&scene.nodes).client;
        scene.invalidations.redirect.set(other.id);
        scene.hear(0, PushEvent::Said(&[INVALIDATE, CHANGED].concat()));
        assert_eq!(scene.caller.was_told(), "");
        scene.nodes.router.clients().leave(other.id);
        scene.hear(0, PushEvent::Said(&[INVALIDATE, CHANGED].concat()));
        assert!(scene.caller.client.has(Mark::BrokenRedirect));
        assert!(scene.caller.was_told().contains("tracking-redir-broken"));
    })
    .await;
}
