use super::*;

fn all(mut bytes: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
    let mut parser = Parser::default();
    let mut requests = Vec::new();
    while let Some(found) = parser.find(bytes)? {
        if !found.blank {
            requests.push(parser.request(bytes, found).args().map(<[u8]>::to_vec).collect());
        }
        bytes = &bytes[found.used..];
    }
    Ok(requests)
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn requests_of_both_forms() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n\r\nset a 'b'\r\n*0\r\n*-1\r\n\x0bPING\n";
    assert_eq!(all(bytes), Ok(vec![words("GET foo"), words("set a b"), words("PING")]));
}

#[test]
fn any_cut_gives_the_same() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$4\r\nf\r\no\r\nset \"a\\x41\" 1\r\n*1\r\n$4\r\nPING\r\n";
    let whole = all(bytes).unwrap();
    assert_eq!(whole.len(), 3);
    let mut parser = Parser::default();
    let mut requests = Vec::new();
    let mut start = 0;
    for end in 0..=bytes.len() {
        while let Some(found) = parser.find(&bytes[start..end]).unwrap() {
            let request = parser.request(&bytes[start..end], found);
            requests.push(request.args().map(<[u8]>::to_vec).collect::<Vec<_>>());
            start += found.used;
        }
    }
    assert_eq!(requests, whole);
}

#[test]
fn integers_are_read_as_the_server_reads_them() {
    for number in [0, 7, -12, 123_456_789, -1_234_567_890, i64::MAX, i64::MIN] {
        assert_eq!(decimal(number.to_string().as_bytes()), Some(number));
    }
    for text in [&b"+1"[..], b"01", b" 1", b"1 ", b"1.0", b"", b"-", b"-0", b"12345678901x", b"9223372036854775808"] {
        assert_eq!(decimal(text), None, "{}", text.escape_ascii());
    }
}

const STRICT: FramingRules = FramingRules {
    unauthenticated: false,
    checks_line_ends: true,
    sees_past_nul: true,
    joins_quoted: false,
    longest_bulk: LONGEST_BULK,
};

/// What becomes of bytes: the frames found, and what ended the search.
fn frames(mut bytes: &[u8], rules: FramingRules) -> (Vec<Vec<u8>>, Option<String>) {
    let (mut parser, mut frames) = (Parser::new(rules), Vec::new());
    loop {
        match parser.find(bytes) {
            Ok(Some(found)) => {
                if !found.blank {
                    frames.push(parser.request(bytes, found).frame().to_vec());
                }
                bytes = &bytes[found.used..];
            }
            Ok(None) => return (frames, None),
            Err(wrong) => return (frames, Some(wrong.text.escape_ascii().to_string())),
        }
    }
}

#[test]
fn wrong_line_ends_are_mended_or_refused() {
    const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
    for bytes in [
        &b"*2\rX$3\r\nGET\r\n$1\r\na\r\n"[..],
        b"*2\r\n$3\rXGET\r\n$1\r\na\r\n",
        b"*2\r\n$3\r\nGETXX$1\r\na\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\naXY",
        b"*-1\rX*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
    ] {
        let wrong = Some("invalid CRLF in request".to_owned());
        let name = bytes.escape_ascii();
        assert_eq!(frames(bytes, FramingRules::default()), (vec![GET.to_vec()], None), "{name}");
        assert_eq!(frames(bytes, STRICT), (Vec::new(), wrong.clone()), "{name}");
        // The requests behind it are found all the same, as they came.
        if bytes.ends_with(b"XY") {
            assert_eq!(frames(&[bytes, GET, bytes].concat(), FramingRules::default()).0, vec![GET; 3], "{name}");
            assert_eq!(frames(&[GET, bytes, GET].concat(), STRICT), (vec![GET.to_vec()], wrong), "{name}");
        }
    }
    // Valkey judges the kind of a head first, then its end, then the number.
    assert_eq!(frames(b"*1\r\n+4\rX", STRICT).1.unwrap(), "expected \\'$\\', got \\'+\\'");
    for bytes in [&b"*x\rX"[..], b"*1\r\n$x\rX"] {
        assert_eq!(frames(bytes, STRICT).1.unwrap(), "invalid CRLF in request");
    }
    assert_eq!(frames(b"*x\rX", FramingRules::default()).1.unwrap(), "invalid multibulk length");
}

#[test]
fn a_nul_hides_what_is_behind_it_or_is_wrong() {
    for (bytes, error, too_long) in [
        (&b"*1\0\r\n"[..], "invalid multibulk length", "too big mbulk count string"),
        (b"*1\r\n\0\r\n", "expected \\'$\\', got \\'\\x00\\'", "too big bulk count string"),
        (b"*1\r\n$4\0\r\nPING\r\n", "invalid bulk length", "too big bulk count string"),
    ] {
        let long = [bytes, &vec![b'x'; LONGEST_LINE]].concat();
        assert_eq!(frames(bytes, STRICT).1.unwrap(), error);
        assert_eq!(frames(bytes, FramingRules::default()), (Vec::new(), None));
        assert_eq!(frames(&long, FramingRules::default()).1.unwrap(), too_long);
    }
    for bytes in [&b"PING\0\r\n"[..], b"\0\nPING\r\n", b"SET a '\0'\r\n"] {
        let long = [bytes, &vec![b'x'; LONGEST_LINE]].concat();
        for rules in [STRICT, FramingRules::default()] {
            assert_eq!(frames(bytes, rules), (Vec::new(), None));
            assert_eq!(frames(&long, rules).1.unwrap(), "too big inline request");
        }
    }
    // Within a bulk string it is as good as any byte.
    assert_eq!(frames(b"*1\r\n$1\r\n\0\r\n", STRICT).0.len(), 1);
}

#[test]
fn errors_are_those_of_the_server() {
    for (bytes, text) in [
        (&b"*x\r\n"[..], "invalid multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*1\r\n+x\r\n", "expected '$', got '+'"),
        (b"*1\r\n\r\n", "expected '$', got '\r'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$99999999999999999999\r\n", "invalid bulk length"),
        (b"set 'a\r\n", "unbalanced quotes in request"),
        (b"set 'a'b\r\n", "unbalanced quotes in request"),
    ] {
        assert_eq!(all(bytes).unwrap_err().text, text.as_bytes(), "{}", bytes.escape_ascii());
    }
    assert_eq!(&*all(b"*1\r\n\xff\r\n").unwrap_err().text, b"expected '$', got '\xff'");
    let long = vec![b'a'; LONGEST_LINE + 1];
    assert_eq!(&*all(&long).unwrap_err().text, b"too big inline request");
    let long = [b"*".as_slice(), &long].concat();
    assert_eq!(&*all(&long).unwrap_err().text, b"too big mbulk count string");
}

#[test]
fn only_the_front_is_looked_at() {
    let mut parser = Parser::default();
    let args =
        |request: Option<Request<'_>>| request.map(|request| request.args().map(<[u8]>::to_vec).collect::<Vec<_>>());
    let frame = b"*3\r\n$3\r\nGET\r\n$1\r\na\r\n$1\r\nb\r\n";
    assert_eq!(args(parser.find_front(frame, 2)).unwrap(), [b"GET".to_vec(), b"a".to_vec()]);
    assert_eq!(args(parser.find_front(frame, 9)).unwrap().len(), 3);
    assert_eq!(args(parser.find_front(b"*1000000000\r\n$3\r\nGET\r\n$1\r\na\r\n", 2)).unwrap().len(), 2);
    assert_eq!(args(parser.find_front(b"*2\r\n$3\r\nGET\r\n", 2)), None);
}

#[test]
fn a_word_may_go_on_behind_a_closing_quote() {
    let rules = FramingRules { joins_quoted: true, ..FramingRules::default() };
    for (line, canonical) in [
        (&b"GET \"\"a'b'\"c\"d\r\n"[..], &b"*2\r\n$3\r\nGET\r\n$4\r\nabcd\r\n"[..]),
        (b"\"GET\" 'a' \r\n", b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"),
    ] {
        assert_eq!(frames(line, rules), (vec![canonical.to_vec()], None), "{}", line.escape_ascii());
    }
    assert_eq!(frames(b"GET \"a\"\"b\r\n", rules).1.unwrap(), "unbalanced quotes in request");
    assert_eq!(frames(b"GET \"a\"b\r\n", FramingRules::default()).1.unwrap(), "unbalanced quotes in request");
}

#[test]
fn the_longest_argument_is_what_servers_are_told_to_take() {
    let frame = |length: u64| format!("*2\r\n$3\r\nGET\r\n${length}\r\n").into_bytes();
    for (longest, length, taken) in [(10, 10, true), (10, 11, false), (1 << 30, 1 << 30, true)] {
        let rules = FramingRules { longest_bulk: longest, ..FramingRules::default() };
        let wrong = frames(&frame(length), rules).1;
        assert_eq!(wrong.is_none(), taken, "{length} of {longest}: {wrong:?}");
    }
}

#[test]
fn options_are_compared_as_c_strings() {
    for (arg, is) in [(&b"SKIP"[..], true), (b"skip", true), (b"SKIP\0\0x", true), (b"SKIPx", false), (b"SKI", false)] {
        assert_eq!(is_option(arg, "SKIP"), is, "{}", arg.escape_ascii());
    }
}
