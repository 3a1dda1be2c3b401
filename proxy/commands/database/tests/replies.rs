//! Keys in replies are named as clients know them.

use std::rc::Rc;

use super::*;

fn stripped(reply_keys: ReplyKeys, reply: &str, steps: usize) -> String {
    let mut strip = Strip::new(&shop(), &Rc::default(), reply_keys).unwrap();
    let reply = reply.replace('\n', "\r\n");
    let pieces = reply.as_bytes().chunks(steps);
    String::from_utf8(pieces.flat_map(|piece| strip.feed(piece)).collect()).unwrap().replace("\r\n", "\n")
}

#[test]
fn keys_in_replies_are_named_as_clients_know_them() {
    let cases = [
        (ReplyKeys::Key, "$9\n{shop}abc\n", "$3\nabc\n"),
        (ReplyKeys::Key, "$6\n{shop}\n", "$0\n\n"),
        (ReplyKeys::Key, "$-1\n", "$-1\n"),
        (ReplyKeys::Key, "_\n", "_\n"),
        (ReplyKeys::Key, "$9\nother{abc\n", "$9\nother{abc\n"),
        (ReplyKeys::Key, "-ERR no {shop}x\n", "-ERR no {shop}x\n"),
        (ReplyKeys::Each, "*3\n$7\n{shop}a\n$2\nab\n$12\n{shop}{shop}\n", "*3\n$1\na\n$2\nab\n$6\n{shop}\n"),
        (ReplyKeys::Each, "*0\n", "*0\n"),
        // What is no key stays as it is.
        (ReplyKeys::First, "*2\n$7\n{shop}l\n$7\n{shop}v\n", "*2\n$1\nl\n$7\n{shop}v\n"),
        (ReplyKeys::First, "*2\n$7\n{shop}l\n*1\n$7\n{shop}v\n", "*2\n$1\nl\n*1\n$7\n{shop}v\n"),
        (ReplyKeys::First, "*-1\n", "*-1\n"),
        (ReplyKeys::Page, "*2\n$7\n{shop}1\n*2\n$7\n{shop}a\n$7\n{shop}b\n", "*2\n$7\n{shop}1\n*2\n$1\na\n$1\nb\n"),
        (
            ReplyKeys::Streams,
            "*2\n*2\n$7\n{shop}s\n*1\n*2\n$3\n1-1\n*2\n$1\nf\n$7\n{shop}v\n*2\n$7\n{shop}t\n*0\n",
            "*2\n*2\n$1\ns\n*1\n*2\n$3\n1-1\n*2\n$1\nf\n$7\n{shop}v\n*2\n$1\nt\n*0\n",
        ),
        (
            ReplyKeys::Streams,
            "%2\n$7\n{shop}s\n*1\n*2\n$7\n{shop}i\n_\n$7\n{shop}t\n*0\n",
            "%2\n$1\ns\n*1\n*2\n$7\n{shop}i\n_\n$1\nt\n*0\n",
        ),
        (
            ReplyKeys::Streams,
            "-NOGROUP No such key '{shop}s' or consumer group '{shop}g' in XREADGROUP with GROUP option\n",
            "-NOGROUP No such key 's' or consumer group '{shop}g' in XREADGROUP with GROUP option\n",
        ),
        (
            ReplyKeys::Group,
            "-NOGROUP No such consumer group '{shop}g' for key name '{shop}s'\n",
            "-NOGROUP No such consumer group '{shop}g' for key name 's'\n",
        ),
        // An attribute annotates what follows it.
        (ReplyKeys::Key, "|1\n$7\n{shop}a\n:1\n$7\n{shop}k\n", "|1\n$7\n{shop}a\n:1\n$1\nk\n"),
    ];
    for (reply_keys, reply, expected) in cases {
        for steps in [1, 2, 3, 7, 1000] {
            assert_eq!(stripped(reply_keys, reply, steps), expected, "in pieces of {steps}: {reply}");
        }
    }
}

#[test]
fn each_reply_of_a_transaction_is_told_by_its_command() {
    let database = shop();
    assert!(Strip::of_all(&database, &Rc::default(), vec![ReplyKeys::Nothing, ReplyKeys::Nothing]).is_none());
    let reply_keys = vec![ReplyKeys::Nothing, ReplyKeys::Each, ReplyKeys::First, ReplyKeys::Nothing];
    let reply =
        b"*4\r\n$7\r\n{shop}v\r\n*1\r\n$7\r\n{shop}k\r\n*2\r\n$7\r\n{shop}l\r\n$7\r\n{shop}v\r\n$7\r\n{shop}v\r\n";
    let expected = b"*4\r\n$7\r\n{shop}v\r\n*1\r\n$1\r\nk\r\n*2\r\n$1\r\nl\r\n$7\r\n{shop}v\r\n$7\r\n{shop}v\r\n";
    for steps in [1, 5, 1000] {
        let mut strip = Strip::of_all(&database, &Rc::default(), reply_keys.clone()).unwrap();
        let told: Vec<u8> = reply.chunks(steps).flat_map(|piece| strip.feed(piece)).collect();
        assert_eq!(told, expected);
    }
    let mut strip = Strip::of_all(&database, &Rc::default(), reply_keys).unwrap();
    assert_eq!(strip.feed(b"-EXECABORT no\r\n"), b"-EXECABORT no\r\n");
}
