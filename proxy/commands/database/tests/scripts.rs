//! Scripts are given the prologue and their keys, and are known by the digests that clients know.

use super::*;
use crate::commands::scripts::{Met, Sha};

/// What goes on of a request about scripts: its name, and what stands behind the script.
fn called(scripts: &ScriptCache, wrapped: &WrappedScripts, words: &[&str]) -> (String, Vec<u8>, String) {
    let (mut frame, mut parser, mut writer) = (Vec::new(), Parser::default(), RequestWriter::default());
    write::request(&mut frame, words);
    let found = parser.find(&frame).unwrap().unwrap();
    let request = parser.request(&frame, found);
    let commands = CommandTable::builtin();
    let policy = Policy::default();
    let (scope, by_digest, is_queued) = (Scope::CLUSTER, true, false);
    let known = KnownScripts { wrapped, scripts, scope, commands: &commands, by_digest, is_queued, policy: &policy };
    let entered = shop().enter(&request, commands.find(&request), known, &mut writer);
    assert!(matches!(entered, Entered::Rewritten | Entered::RewrittenUntold), "{entered:?}");
    let text = |arg: &[u8]| String::from_utf8(arg.to_vec()).unwrap();
    let rest: Vec<String> = writer.request().args().skip(2).map(text).collect();
    (text(writer.request().name()), writer.request().arg(1).to_vec(), rest.join(" "))
}

#[test]
fn scripts_are_given_the_prologue_and_their_keys() {
    let (scripts, wrapped) = (ScriptCache::new(Arc::default()), WrappedScripts::default());
    let called = |words: &[&str]| called(&scripts, &wrapped, words);
    let (name, text, rest) = called(&["EVAL", "return KEYS", "2", "a", "b", "c"]);
    assert!(text.ends_with(b"end;return KEYS") && !text.contains(&b'\n') && !text.contains(&b'@'));
    assert_eq!((&*name, &*rest), ("EVAL", "3 {shop}a {shop}b {shop}\0slotway1 c"));
    for (words, expected) in [
        (&["EVAL", "return KEYS", "0", "a"][..], "2 {shop}\0slotway1 {shop}\0slotway2 a"),
        (&["EVAL", "return KEYS", "0"], "2 {shop}\0slotway1 {shop}\0slotway2"),
        // What is several keys for sure.
        (&["EVAL", "return KEYS", "1", "\0slotway1"], "3 {shop}\0slotway1 {shop}\0slotway1 {shop}\0slotway2"),
        // What a server refuses before it runs anything.
        (&["EVAL", "return KEYS", "x", "a"], "x a"),
        (&["EVAL", "return KEYS", "-1", "a"], "-1 a"),
        (&["EVAL", "return KEYS", "3", "a"], "3 a"),
    ] {
        let (_, kept, rest) = called(words);
        assert_eq!((rest.as_str(), &kept), (expected, &text), "{words:?}");
    }
    let (_, with_flags, _) = called(&["EVAL", "#!lua flags=no-writes\nreturn KEYS", "0"]);
    assert!(with_flags.starts_with(b"#!lua flags=no-writes\ndo local keys") && with_flags.ends_with(b";return KEYS"));
    assert_eq!(called(&["EVAL", "#!lua", "0"]).1, b"#!lua");
}

#[test]
fn a_text_that_tells_its_keys_has_the_prefix_within() {
    let (scripts, wrapped) = (ScriptCache::new(Arc::default()), WrappedScripts::default());
    let text = "#!lua\nlocal k = 'a' .. ARGV[1]\nreturn redis.call('get', k) or redis.call('get', ARGV[1] .. 'b')";
    let (_, kept, rest) = called(&scripts, &wrapped, &["EVAL", text, "0", "x"]);
    let expected = "#!lua\nlocal k = '{shop}a' .. ARGV[1]\nreturn redis.call('get', k) or redis.call('get', '{shop}' .. ARGV[1] .. 'b')";
    assert_eq!(String::from_utf8(kept).unwrap(), expected);
    assert_eq!(rest, "2 {shop}\0slotway1 {shop}\0slotway2 x");
    let (_, kept, _) = called(&scripts, &wrapped, &["EVAL", "return redis.call('get', ARGV[1])", "0", "x"]);
    let kept = String::from_utf8(kept).unwrap();
    assert!(kept.starts_with("local function slotway_key(key) "), "{kept}");
    assert!(kept.ends_with(" end;return redis.call('get', slotway_key(ARGV[1]))"), "{kept}");
}

#[test]
fn a_script_that_only_hands_on_its_declared_keys_is_kept_as_it_is() {
    let (scripts, wrapped) = (ScriptCache::new(Arc::default()), WrappedScripts::default());
    let text = "return redis.call('get', KEYS[1])";
    let (name, kept, rest) = called(&scripts, &wrapped, &["EVAL", text, "1", "a", "b"]);
    assert_eq!((&*name, kept, &*rest), ("EVAL", text.as_bytes().to_vec(), "1 {shop}a b"));
    let digest = String::from_utf8(Sha::of(text.as_bytes()).digits().to_vec()).unwrap();
    let (name, kept, rest) = called(&scripts, &wrapped, &["EVALSHA", &digest, "1", "a", "b"]);
    assert_eq!((&*name, kept, &*rest), ("EVALSHA", digest.clone().into_bytes(), "1 {shop}a b"));
    let (name, kept, rest) = called(&scripts, &wrapped, &["evalsha", &digest.to_uppercase(), "2", "a", "b"]);
    assert_eq!((&*name, kept, &*rest), ("evalsha", digest.into_bytes(), "2 {shop}a {shop}b"));
    assert!(wrapped.is_said(b"{shop}", text.as_bytes()) && !wrapped.is_said(b"{other}", text.as_bytes()));
}

#[test]
fn digests_are_changed_both_ways() {
    let (scripts, wrapped) = (ScriptCache::new(Arc::default()), Rc::new(WrappedScripts::default()));
    let said = Sha::of(b"return KEYS");
    let digits = |sha: &Sha| String::from_utf8(sha.digits().to_vec()).unwrap();
    let nobodys = "f".repeat(40);
    assert_eq!(called(&scripts, &wrapped, &["EVALSHA", &digits(&said), "0"]).1, nobodys.as_bytes());
    let text = called(&scripts, &wrapped, &["EVAL", "return KEYS", "0"]).1;
    let kept = Sha::of(&text);
    assert_eq!(called(&scripts, &wrapped, &["EVALSHA", &digits(&said), "0"]).1, kept.digits());
    // By its digest only once it has run, and a node can be given it.
    assert_eq!(called(&scripts, &wrapped, &["EVAL", "return KEYS", "0"]).0, "EVAL");
    let mut strip = Strip::new(&shop(), &wrapped, ReplyKeys::Script).unwrap();
    strip.proves(kept);
    assert_eq!(strip.feed(b":1\r\n"), b":1\r\n");
    scripts.learn(&text, Met::Evaluated);
    assert_eq!(called(&scripts, &wrapped, &["EVAL", "return KEYS", "0"]).0, "EVALSHA");
    assert_eq!(called(&scripts, &wrapped, &["EVAL_RO", "return KEYS", "0"]).0, "EVALSHA_RO");
    let error = format!("-ERR no script: {}, on @user_script:1.\r\n", digits(&kept));
    for (reply_keys, reply, expected) in [
        (ReplyKeys::Script, error.clone(), error.replace(&digits(&kept), &digits(&said))),
        // What a script answers is its own.
        (ReplyKeys::Script, format!("$40\r\n{}\r\n", digits(&kept)), format!("$40\r\n{}\r\n", digits(&kept))),
        (ReplyKeys::Digest, format!("$40\r\n{}\r\n", digits(&kept)), format!("$40\r\n{}\r\n", digits(&said))),
    ] {
        for step in [1, 7, 1000] {
            let mut strip = Strip::new(&shop(), &wrapped, reply_keys).unwrap();
            let told: Vec<u8> = reply.as_bytes().chunks(step).flat_map(|piece| strip.feed(piece)).collect();
            assert_eq!(String::from_utf8(told).unwrap(), expected);
        }
    }
}
