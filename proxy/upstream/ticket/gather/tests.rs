//! Parts of split requests that come together, without nodes.

use std::rc::Rc;

use super::*;
use crate::{
    cluster::topology::Route,
    commands::{
        merge::{Merge, MergeRule},
        plan::{Plan, Policy, Split, plan},
        table::CommandTable,
    },
    upstream::{
        router::scripted::{Scripted, request, within_a_minute},
        ticket::RequestTraits,
    },
};

struct Scene {
    /// Kept, since the line is its worker's.
    _nodes: Scripted,
    line: Rc<Line>,
}

impl Scene {
    fn new() -> Scene {
        let nodes = Scripted::new(2);
        let line = Line::new(nodes.router.tally().clone(), nodes.router.clock().clone(), 1024);
        Scene { _nodes: nodes, line }
    }

    fn whole(&self) -> Envelope {
        Envelope::new(self.line.open(None, 10, Route::Any), Route::Any, RequestTraits::default())
    }

    fn told(&self) -> String {
        self.line.write_out(|bytes| (bytes.len(), String::from_utf8_lossy(bytes).into_owned()))
    }
}

fn sum(parts: usize) -> Merge {
    Merge::new(MergeRule::Sum, parts, None, false)
}

fn unsent(part: Envelope) {
    part.bounce(Bytes::from_static(b"PART"), Why::Unsent("ERR proxy: lost".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_last_part_answers_the_whole() {
    within_a_minute(async {
        let scene = Scene::new();
        let mut parts = scene.whole().split(sum(3), 3);
        for reply in [b":1\r\n", b":2\r\n"] {
            parts.pop().expect("a part").fill(reply);
            assert_eq!(scene.told(), "");
        }
        parts.pop().expect("a part").fill(b":4\r\n");
        assert_eq!((scene.told().as_str(), scene.line.is_settled()), (":7\r\n", true));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_part_that_comes_back_goes_again_and_the_others_are_kept() {
    within_a_minute(async {
        let scene = Scene::new();
        let mut parts = scene.whole().split(sum(2), 2);
        parts.pop().expect("a part").fill(b":2\r\n");
        unsent(parts.pop().expect("a part"));
        let back = scene.line.take_bounced();
        assert_eq!(back.len(), 1);
        back.into_iter().for_each(|bounced| bounced.envelope.fill(b":1\r\n"));
        assert_eq!(scene.told(), ":3\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_dropped_is_an_error_and_no_place_stays_empty() {
    within_a_minute(async {
        let scene = Scene::new();
        let mut parts = scene.whole().split(sum(2), 2);
        parts.pop().expect("a part").fill(b":2\r\n");
        drop(parts);
        assert!(scene.told().starts_with("-ERR proxy: the request was dropped"));
        assert!(scene.line.is_settled());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_to_be_put_together_comes_back_as_a_whole() {
    within_a_minute(async {
        let scene = Scene::new();
        let mut parts = scene.whole().split(sum(2), 2);
        let (first, second) = (parts.remove(0), parts.remove(0));
        first.ticket.may_go_again(Bytes::from_static(b"WHOLE"), two_slots());
        first.ticket.holds(MOST_GATHERED - 1);
        assert!(!scene.line.has_bounced());
        first.ticket.holds(MOST_GATHERED);
        let back = scene.line.take_bounced();
        let [Bounced { why: Why::TooLarge(split), request, .. }] = &back[..] else { panic!("{back:?}") };
        assert_eq!((&request[..], split), (&b"WHOLE"[..], &two_slots()), "it need not be planned again");
        assert!(first.ticket.is_abandoned() && second.ticket.is_abandoned(), "the parts are for nobody");
        first.fill(b":1\r\n");
        second.fill(b":1\r\n");
        assert_eq!(scene.line.gathered(), 0);
        back.into_iter().for_each(|bounced| bounced.envelope.fill(b":9\r\n"));
        assert_eq!((scene.told().as_str(), scene.line.is_settled()), (":9\r\n", true));
    })
    .await;
}

/// How a request of two keys is cut.
fn two_slots() -> Rc<Split> {
    let words = request("MGET foo bar");
    let words = words.as_request();
    match plan(&words, CommandTable::builtin().find(&words), &Policy::default()) {
        Plan::Split(split) => split,
        other => panic!("{other:?}"),
    }
}
