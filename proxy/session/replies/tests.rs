//! What clients want of their replies, without a session.

use super::*;
use crate::{session::caller::Caller, upstream::router::scripted::Scripted};

#[test]
fn what_a_client_does_not_want_is_the_next_reply_or_all() {
    use ReplyMode::{Off, On, Skip};
    // What is said one after the other, and whether the next two replies are unwanted then; none: RESET.
    for (said, unwanted) in [
        (&[][..], [false, false]),
        (&[Some(Skip)], [true, false]),
        (&[Some(Off)], [true, true]),
        (&[Some(Off), Some(Skip)], [true, true]),
        (&[Some(Off), Some(On)], [false, false]),
        (&[Some(Skip), Some(On)], [false, false]),
        (&[Some(Off), None], [false, false]),
        // RESET itself is the next.
        (&[Some(Skip), None], [true, false]),
    ] {
        let mut replies = Replies::default();
        for mode in said {
            match mode {
                Some(mode) => replies.set(*mode),
                None => replies.reset(),
            }
        }
        assert_eq!([replies.is_next_unwanted(), replies.is_next_unwanted()], unwanted, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_exec_asks_for_is_neither_told_nor_skipped() {
    let nodes = Scripted::new(1);
    let mut dispatcher = Dispatcher::new(Caller::of(&nodes));
    dispatcher.replies.set(ReplyMode::Skip);
    let (_, aside) = dispatcher.answer_aside(|dispatcher| dispatcher.answer(None, b"+PONG\r\n"));
    assert_eq!((&aside[..], &*dispatcher.caller.was_told()), (&b"+PONG\r\n"[..], ""));
    dispatcher.answer(None, b"*1\r\n+PONG\r\n");
    assert_eq!(dispatcher.caller.was_told(), "", "this is the next reply");
    dispatcher.answer(None, b"+OK\r\n");
    assert_eq!(dispatcher.caller.was_told(), "+OK\r\n");
}
