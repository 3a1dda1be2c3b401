use std::rc::Rc;

use super::Line;
use crate::{
    cluster::topology::Route,
    commands::{merge::Merge, table::treatment::MergeRule},
    metrics::Metrics,
    upstream::ticket::{Clock, Envelope, RequestTraits, Ticket},
};

fn line() -> Rc<Line> {
    Line::new(Rc::new(Metrics::new().client_tally()), Rc::new(Clock::start()), 1024)
}

fn open(line: &Rc<Line>) -> Ticket {
    line.open(None, 10, Route::Any)
}

fn whole(line: &Rc<Line>) -> Envelope {
    Envelope::new(open(line), Route::Any, RequestTraits::default())
}

fn written(line: &Line) -> String {
    line.write_out(|bytes| (bytes.len(), String::from_utf8_lossy(bytes).into_owned()))
}

#[test]
fn a_message_stands_behind_the_replies_that_came_before_it() {
    let line = line();
    line.push_behind(b"<1>");
    let (first, second, third) = (open(&line), open(&line), open(&line));
    line.push_behind(b"<2>");
    assert_eq!(written(&line), "<1><2>", "nothing has come that it could be about");
    second.fill(b"B");
    line.push_behind(b"<3>");
    line.push_behind(b"<4>");
    first.stream(b"a");
    line.push_behind(b"<5>");
    assert_eq!(written(&line), "a");
    first.fill(b"A");
    assert_eq!(written(&line), "AB<3><4><5>");
    third.stream(b"c");
    line.push_behind(b"<6>");
    let fourth = open(&line);
    assert_eq!(written(&line), "c");
    fourth.fill(b"D");
    line.push_behind(b"<7>");
    third.fill(b"C");
    assert_eq!((written(&line).as_str(), line.is_settled()), ("C<6>D<7>", true));
    assert_eq!(line.owed(), 0);
}

#[test]
fn a_message_about_a_part_stands_behind_the_whole() {
    let line = line();
    let merge = Merge::new(MergeRule::Sum, 2, None, false);
    let mut parts = whole(&line).split(merge, 2);
    let next = open(&line);
    parts.remove(1).fill(b":1\r\n");
    line.push_behind(b"<1>");
    assert_eq!(written(&line), "");
    parts.remove(0).fill(b":2\r\n");
    next.fill(b"N");
    assert_eq!(written(&line), ":3\r\n<1>N");
}

#[test]
fn everything_is_forgotten_once() {
    let line = line();
    let flush = || line.push_flush(b"<all>", true);
    flush();
    flush();
    assert_eq!(written(&line), "<all>");
    flush();
    assert_eq!(written(&line), "", "nothing has come since");
    let (first, second) = (open(&line), open(&line));
    second.fill(b"B");
    flush();
    flush();
    line.push_behind(b"<key>");
    flush();
    first.fill(b"A");
    assert_eq!(written(&line), "AB<all><key><all>");
    line.push_flush(b"<all>", false);
    line.push_flush(b"<all>", false);
    assert_eq!(written(&line), "<all>", "the client may have read elsewhere in between");
    line.push_flush(b"<all>", false);
    assert_eq!(written(&line), "<all>");
    open(&line).fill(b"A");
    flush();
    assert_eq!(written(&line), "A<all>");
}

#[test]
fn nothing_is_behind_what_broke_off() {
    let line = line();
    let (first, second) = (open(&line), open(&line));
    first.stream(b"a");
    line.push(b"<1>");
    second.fill(b"B");
    first.fail("ERR lost");
    open(&line).fill(b"C");
    line.push(b"<2>");
    assert_eq!((written(&line).as_str(), line.is_broken()), ("a", true));
}

#[test]
fn a_window_that_is_made_smaller_holds_at_once() {
    let line = line();
    line.allow(3);
    let tickets: Vec<Ticket> = (0..3).map(|_| open(&line)).collect();
    assert!(line.is_full());
    drop(tickets);
    line.allow(8);
    assert!(!line.is_full(), "nothing is on its way");
}
