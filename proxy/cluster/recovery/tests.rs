//! A table: what came back, after what, and what becomes of it.

use super::*;
use crate::cluster::topology::Redirect;

const LIMITS: Limits = Limits { timeout: Duration::from_secs(3), redirects: 5 };
const TORN: &[u8] = b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
const LOADING: &[u8] = b"-LOADING Redis is loading the dataset in memory\r\n";

fn node() -> Arc<Node> {
    Node::primary("a", "a:7000")
}

fn redirect(kind: RedirectKind) -> Why {
    let said = match kind {
        RedirectKind::Moved => &b"MOVED 7 b:7001"[..],
        RedirectKind::Ask => b"ASK 7 b:7001",
    };
    Why::Redirected(Redirect::parse(said).unwrap(), node())
}

fn case(why: &Why) -> Case<'_> {
    Case {
        why,
        slot: Slot::new(7),
        refusals: 1,
        is_strange: false,
        is_first: false,
        is_overtaken: false,
        goes_by_key: false,
    }
}

fn given_up(action: &Action) -> Option<&str> {
    match action {
        Action::GiveUp(error) => Some(error),
        Action::Again | Action::Wait => None,
    }
}

#[test]
fn a_request_goes_again_waits_or_is_given_up() {
    use Action::{Again, Wait};
    let (moved, ask) = (redirect(RedirectKind::Moved), redirect(RedirectKind::Ask));
    let torn = Why::Later(Later::TryAgain, Bytes::from_static(TORN));
    let loading = Why::Later(Later::Loading, Bytes::from_static(LOADING));
    let unsent = Why::Unsent("ERR proxy: refused".into());
    let hopeless = Why::Hopeless("ERR proxy: no password".into());
    let lacks = Why::NoScript(node(), Bytes::from_static(b"-NOSCRIPT No matching script.\r\n"));
    let late = LIMITS.timeout;
    let gives = |error: &str| Action::GiveUp(error.to_owned());
    for (name, case, after, expected) in [
        ("a redirect is followed at once", case(&moved), Duration::ZERO, Again),
        ("so is the other kind", case(&ask), Duration::ZERO, Again),
        ("nodes that disagree get time", Case { refusals: 5, ..case(&moved) }, Duration::ZERO, Wait),
        ("an unknown node is looked for", Case { is_strange: true, ..case(&moved) }, Duration::ZERO, Wait),
        ("a node that is loading gets time", case(&loading), Duration::ZERO, Wait),
        ("so does one that cannot be reached", case(&unsent), Duration::ZERO, Wait),
        ("keys that are apart come together", case(&torn), Duration::ZERO, Wait),
        ("keys are looked for one by one", Case { goes_by_key: true, ..case(&torn) }, Duration::ZERO, Again),
        ("a script is brought along", case(&lacks), Duration::ZERO, Again),
        ("in vain", case(&hopeless), Duration::ZERO, gives("ERR proxy: no password")),
        ("the time is over", case(&unsent), late, gives("ERR proxy: refused")),
        ("in the node's words", case(&loading), late, gives("LOADING Redis is loading the dataset in memory")),
        ("one that had to wait has its chance", Case { is_first: true, ..case(&unsent) }, late, Wait),
        ("but not in vain", Case { is_first: true, ..case(&hopeless) }, late, gives("ERR proxy: no password")),
        (
            "later ones have run",
            Case { is_overtaken: true, ..case(&unsent) },
            Duration::ZERO,
            gives("ERR proxy: refused"),
        ),
        ("a redirect is in order all the same", Case { is_overtaken: true, ..case(&moved) }, Duration::ZERO, Again),
    ] {
        let start = Instant::now();
        let mut history = History::begin(start);
        history.note([case].into_iter());
        assert_eq!(history.decide(&case, start + after, &LIMITS), expected, "{name}: {case:?}");
    }
}

#[test]
fn redirects_are_counted_by_rounds() {
    let (now, moved) = (Instant::now(), redirect(RedirectKind::Moved));
    let mut history = History::begin(now);
    for round in 1..=5 {
        history.note([case(&moved), case(&moved), case(&moved)].into_iter());
        assert_eq!(given_up(&history.decide(&case(&moved), now, &LIMITS)), None, "round {round}");
    }
    history.note([case(&moved)].into_iter());
    let action = history.decide(&case(&moved), now, &LIMITS);
    assert_eq!(
        given_up(&action),
        Some("ERR proxy: too many redirects for slot 7: a:7000 still says Moved b:7001 (SLOTWAY-REDIRECTS)")
    );
    // Those behind have redirects of their own.
    history.turn();
    assert_eq!(history.decide(&case(&moved), now, &LIMITS), Action::Again);
}

#[test]
fn between_the_ends_of_a_move_only_the_time_counts() {
    let (now, ask) = (Instant::now(), redirect(RedirectKind::Ask));
    let torn = Why::Later(Later::TryAgain, Bytes::from_static(TORN));
    let mut history = History::begin(now);
    for _ in 0..50 {
        history.note([case(&torn)].into_iter());
        history.note([case(&ask)].into_iter());
        assert_eq!(given_up(&history.decide(&case(&ask), now, &LIMITS)), None);
    }
    let action = history.decide(&case(&ask), now + LIMITS.timeout, &LIMITS);
    assert_eq!(given_up(&action), Some("TRYAGAIN Multiple keys request during rehashing of slot"));
}
