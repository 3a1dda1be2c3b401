//! A queue of tickets of one line, without a link.

use std::rc::Rc;

use super::*;
use crate::{
    cluster::topology::Route,
    metrics::Metrics,
    upstream::ticket::{Clock, Line, RequestTraits},
};

const NO_LIMIT: Room = Room { bytes: usize::MAX, requests: usize::MAX };

fn line() -> Rc<Line> {
    Line::new(Rc::new(Metrics::new().client_tally()), Rc::new(Clock::start()), 1024)
}

/// Queues a request behind a prelude of its own.
fn push(queue: &mut Queue, line: &Rc<Line>, prelude: &str, request: &str, exclusive: bool) {
    queue.bytes.extend_from_slice(prelude.as_bytes());
    queue.bytes.extend_from_slice(request.as_bytes());
    let ticket = line.open(None, request.len(), Route::Any);
    queue.push(Entry {
        envelope: Some(Envelope::new(ticket, Route::Any, RequestTraits::default())),
        length: prelude.len() + request.len(),
        prefix: prelude.len(),
        prelude: u32::from(!prelude.is_empty()),
        swallow: 0,
        exclusive,
        unknown: false,
        fault: None,
        since: Instant::now(),
        heartbeat: false,
    });
}

/// The front request is answered.
fn answer(queue: &mut Queue) {
    queue.pop().and_then(|entry| entry.envelope).expect("a request").fill(b"+OK\r\n");
}

#[test]
fn only_whole_requests_are_written_and_one_in_any_case() {
    let (mut queue, line) = (Queue::default(), line());
    ["aaaa", "bbbb", "cccc"].iter().for_each(|request| push(&mut queue, &line, "", request, false));
    let writable = |queue: &Queue, bytes, requests| queue.writable(Room { bytes, requests });
    assert_eq!(queue.writable(NO_LIMIT), 12);
    assert_eq!(writable(&queue, 9, 10), 8, "no request is torn");
    assert_eq!(writable(&queue, 1, 10), 4);
    assert_eq!(writable(&queue, 100, 2), 8);
    queue.written = 12;
    assert_eq!(writable(&queue, 1, 1), 12, "what has been written stays so");
    answer(&mut queue);
    assert_eq!((queue.written, queue.front_frame()), (8, &b"bbbb"[..]));
}

#[test]
fn nothing_is_written_behind_an_exclusive_request() {
    let (mut queue, line) = (Queue::default(), line());
    push(&mut queue, &line, "", "aaaa", false);
    push(&mut queue, &line, "", "bbbb", true);
    push(&mut queue, &line, "", "cccc", true);
    push(&mut queue, &line, "", "dddd", false);
    assert_eq!(queue.writable(NO_LIMIT), 8);
    queue.written = 8;
    answer(&mut queue);
    assert_eq!(queue.writable(NO_LIMIT), 4);
    answer(&mut queue);
    assert_eq!(queue.writable(NO_LIMIT), 4, "up to the next of them");
    queue.written = 4;
    answer(&mut queue);
    assert_eq!(queue.writable(NO_LIMIT), 4);
}

#[test]
fn what_nobody_waits_for_is_dropped_unless_it_was_begun_or_others_rely_on_it() {
    let (mut queue, gone, stays) = (Queue::default(), line(), line());
    push(&mut queue, &gone, "", "aaaa", false);
    push(&mut queue, &gone, "", "bbbb", true);
    push(&mut queue, &stays, "", "cccc", true);
    push(&mut queue, &gone, "LOAD", "dddd", false);
    push(&mut queue, &stays, "", "eeee", false);
    queue.written = 2;
    gone.close();
    assert_eq!(queue.drop_abandoned(), (1, 4), "the first is begun, and the last loads a script");
    assert_eq!(&queue.bytes[..], b"aaaaccccLOADddddeeee");
    assert_eq!(queue.writable(NO_LIMIT), 8, "behind what is exclusive");
    assert_eq!(queue.drop_abandoned(), (0, 0));
    assert!(!queue.owes_nothing());
}

#[test]
fn what_is_taken_out_says_whether_it_was_written() {
    let (mut queue, line) = (Queue::default(), line());
    push(&mut queue, &line, "LOAD", "aaaa", true);
    push(&mut queue, &line, "", "bbbb", false);
    push(&mut queue, &line, "", "cccc", false);
    queue.written = 14;
    let taken = queue.take_all().into_iter().map(|(envelope, taken)| {
        envelope.expect("an envelope").fill(b"+OK\r\n");
        (String::from_utf8_lossy(&taken.bytes).into_owned(), taken.written)
    });
    let expected = [("aaaa".to_owned(), true), ("bbbb".to_owned(), true), ("cccc".to_owned(), false)];
    assert_eq!(taken.collect::<Vec<_>>(), expected);
    // What comes next is as in a new queue.
    push(&mut queue, &line, "", "dddd", true);
    push(&mut queue, &line, "", "eeee", false);
    assert_eq!((queue.writable(NO_LIMIT), queue.written), (4, 0));
}
