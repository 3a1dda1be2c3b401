use super::*;

/// What becomes of a text: as it is, or with `P` for the prefix, `P..` where it is put before, `K(` and `)` around what is
/// asked for; behind it, what it sees in KEYS.
fn told(text: &str) -> String {
    let rewriting = match reach(text.as_bytes(), &CommandTable::builtin()) {
        Reach::Declared => return "declared".to_owned(),
        Reach::Any => return "any".to_owned(),
        Reach::Told(rewriting) => rewriting,
    };
    let mut out = text.to_owned();
    for (at, what) in rewriting.insertions.iter().rev() {
        out.insert_str(
            *at,
            match what {
                Insertion::Prefix => "P",
                Insertion::PrefixAnd => "P..",
                Insertion::Call => "K(",
                Insertion::Open => "(",
                Insertion::End => ")",
            },
        );
    }
    out + match rewriting.sees {
        Sees::Nothing => "",
        Sees::Kept => " -- kept",
        Sees::Said => " -- said",
    }
}

#[test]
fn what_only_hands_its_declared_keys_on_is_left_as_it_is() {
    for text in [
        "return 1",
        "return redis.call('get', KEYS[1])",
        "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end",
        "local k = KEYS[1] local v = redis.call('get', k) return redis.call('set', k, v .. ARGV[1])",
        "local a, b = KEYS[1], KEYS[2];\nreturn redis.call('rename', a, b)",
        "local a = KEYS[1] local b = a local now = redis.call('time')[1] return redis.call('set', b, now)",
        "redis.call('hset', KEYS[1], unpack(ARGV)) return redis.status_reply('OK')",
        "return redis.call('zinterstore', KEYS[1], 2, KEYS[2], KEYS[3])",
        "return redis.call('set', KEYS[1], redis.call('get', KEYS[2]))",
        "local call = redis.call call('set', KEYS[1], 'server payload') return call('get', KEYS[1])",
        "return #KEYS",
        "return redis.call('time')",
        "-- KEYS, redis\nreturn 'KEYS and redis' .. [[KEYS]]",
        "--[[ redis.call('get', KEYS[1]) ]] return redis.call('get', KEYS[1])",
    ] {
        assert_eq!(told(text), "declared", "{text}");
    }
}

#[test]
fn keys_that_the_text_tells_are_named_as_they_are_kept() {
    for (text, expected) in [
        ("return redis.call('get', 'computed')", "return redis.call('get', 'Pcomputed')"),
        ("return redis.call('get', \"c:\" .. ARGV[1])", "return redis.call('get', \"Pc:\" .. ARGV[1])"),
        ("redis.pcall('SET', ARGV[1]..':x', 1)", "redis.pcall('SET', P..ARGV[1]..':x', 1)"),
        ("redis.call('get', 'c:' .. tostring(i))", "redis.call('get', 'Pc:' .. tostring(i))"),
        ("return redis.call('get', KEYS[1] .. 'x')", "return redis.call('get', KEYS[1] .. 'x') -- kept"),
        (
            "local k = KEYS[1] .. 'x' return redis.call('get', k)",
            "local k = KEYS[1] .. 'x' return redis.call('get', k) -- kept",
        ),
        (
            "local n, k = ARGV[1] .. 'n', 'x' .. #KEYS redis.call('get', k) return redis.call('get', n)",
            "local n, k = P..ARGV[1] .. 'n', 'Px' .. #KEYS redis.call('get', k) return redis.call('get', n) -- kept",
        ),
        (
            "local ns = KEYS[1] local k = ns .. ':q' return redis.call('rename', k, ns .. 'x')",
            "local ns = KEYS[1] local k = ns .. ':q' return redis.call('rename', k, ns .. 'x') -- kept",
        ),
        (
            "local ns = KEYS[1] local k = ns .. ':q' return redis.call('rename', k, ns .. 'x' .. k)",
            "local ns = KEYS[1] local k = ns .. ':q' return redis.call('rename', K(k), P..ns .. 'x' .. k) -- said",
        ),
        // A local that is something else, too.
        (
            "local k = 'a' .. ARGV[1] redis.call('get', k) return k",
            "local k = 'a' .. ARGV[1] redis.call('get', K(k)) return k",
        ),
        (
            "local k = 'a' .. i k = 'b' return redis.call('get', k)",
            "local k = 'a' .. i k = 'b' return redis.call('get', K(k))",
        ),
        (
            "local k = 'a' .. i return function(k) return redis.call('get', k) end",
            "local k = 'a' .. i return function(k) return redis.call('get', K(k)) end",
        ),
        ("local k = 'a' .. i < j return redis.call('get', k)", "local k = 'a' .. i < j return redis.call('get', K(k))"),
        (
            "local k = 'a' .. i (f)() return redis.call('get', k)",
            "local k = 'Pa' .. i (f)() return redis.call('get', k)",
        ),
        // What is no string for sure.
        ("redis.call('incr', 42)", "redis.call('incr', K(42))"),
        ("redis.call('incr', x and 'a' .. b or c)", "redis.call('incr', K(x and 'a' .. b or c))"),
        (
            "redis.call('set', f(), redis.call('get', g(1) .. 2))",
            "redis.call('set', K(f()), redis.call('get', P..g(1) .. 2))",
        ),
        ("redis.call('mget', KEYS[1], 'x')", "redis.call('mget', KEYS[1], 'Px') -- kept"),
        (
            "redis.call('zunionstore', 'd', 2, 'a', b, 'WEIGHTS', 1, 2)",
            "redis.call('zunionstore', 'Pd', 2, 'Pa', K(b), 'WEIGHTS', 1, 2)",
        ),
        ("f(--redis.call('get',\n KEYS[1])", "f(--redis.call('get',\n KEYS[1]) -- said"),
        // It sees a key, or may.
        ("return KEYS[1]", "return KEYS[1] -- said"),
        ("return #KEYS[1]", "return #KEYS[1] -- said"),
        (
            "local k = KEYS[1] redis.call('get', k) return k",
            "local k = KEYS[1] redis.call('get', K(k)) return k -- said",
        ),
        (
            "local k = KEYS[1] (f)() return redis.call('get', k)",
            "local k = KEYS[1] (f)() return redis.call('get', K(k)) -- said",
        ),
        ("return redis.call('set', KEYS[1], KEYS[1])", "return redis.call('set', K(KEYS[1]), KEYS[1]) -- said"),
        ("return redis.call('get', KEYS[i])", "return redis.call('get', K(KEYS[i])) -- said"),
        ("KEYS[1] = 'x' redis.call('get', KEYS[1] .. 1)", "KEYS[1] = 'x' redis.call('get', P..KEYS[1] .. 1) -- said"),
        (
            "local KEYS = {'x'} return redis.call('get', KEYS[1])",
            "local KEYS = {'x'} return redis.call('get', K(KEYS[1])) -- said",
        ),
        (
            "for _, k in ipairs(KEYS) do redis.call('get', k) end",
            "for _, k in ipairs(KEYS) do redis.call('get', K(k)) end -- said",
        ),
        ("local r = redis.call\nr('get', 'a')", "local r = redis.call\nr('get', 'Pa')"),
    ] {
        assert_eq!(told(text), expected);
    }
}

#[test]
fn where_the_text_does_not_tell_it_is_seen_as_it_runs() {
    for text in [
        "return redis.call('del', unpack(KEYS))",
        "return redis.call('del', KEYS[1], unpack(ARGV))",
        "return redis.call('zinterstore', KEYS[1], ARGV[1], KEYS[2])",
        "return redis.call('get', f())",
        "return redis.call('get', ...)",
        "return redis.call('get', f'x')",
        "return redis.call('set', KEYS[1], function() return 1, KEYS[2] end)",
        "return redis.call('keys', '*')",
        "return redis.call('sort', KEYS[1], ARGV[1], ARGV[2])",
        "return redis.call('georadius', KEYS[1], 1, 2, 3, 'km', ARGV[1], ARGV[2])",
        "return redis.call('lmpop', 1, KEYS[1], 'LEFT')",
        "return redis.call('object', 'encoding', KEYS[1])",
        "return redis.call('nonesuch', KEYS[1])",
        "return redis.call('get')",
        "return redis.call(ARGV[1], KEYS[1])",
        "return redis.call('get'..'x', KEYS[1])",
        "return redis.call(('get'), KEYS[1])",
        "local call = redis.call return call(ARGV[1], 'k')",
        "local call = redis.call return f(call)",
        "local call = redis.call local call = redis.call return call('get', 'k')",
        "call('get', 'a') local call = redis.call or f return call('get', 'k')",
        "return pcall(redis.call, 'get', KEYS[1])",
        "return redis.callx('get', 'k')",
        "return redis",
        "local redis = f() return redis('get', 'k')",
        "return x.redis.call('get', KEYS[1])",
        "return redis.acl_check_cmd('get', KEYS[1])",
        "return server.call('get', KEYS[1])",
        "return _G['red'..'is'].call('get', 'k')",
        "return loadstring('return red'..'is.call(\"get\", \"k\")')()",
        "return getfenv(1)['red'..'is']",
        "local slotway_key = f return redis.call('get', slotway_key)",
        "do local _VERSION = KEYS[1] end return redis.call('get', _VERSION)",
        "local t = setmetatable({}, {__concat = f}) return redis.call('get', t .. 'x')",
        "return 'open",
        "return [==[ open ]=]",
        "return 1 @ 2",
        &format!("return '{}'", "x".repeat(LONGEST)),
    ] {
        assert_eq!(told(text), "any", "{text}");
    }
}

#[test]
fn calls_that_are_returned_are_so_by_their_values() {
    for (text, expected) in [
        ("return redis.call(n, 'a')", "return (redis.call(n, 'a'))"),
        ("if x then return redis.pcall(n) end return 1", "if x then return (redis.pcall(n)) end return 1"),
        ("local r = redis.call\nreturn r(n, f(1));", "local r = redis.call\nreturn (r(n, f(1)));"),
        ("return function() return redis.call(n) end", "return function() return (redis.call(n)) end"),
        // What is more than the call, or nothing that is known.
        ("return redis.call(n)[1]", "return redis.call(n)[1]"),
        ("return redis.call(n), 2", "return redis.call(n), 2"),
        ("return redis.call(n) or 1", "return redis.call(n) or 1"),
        ("return redis.call(n) .. 'x'", "return redis.call(n) .. 'x'"),
        ("return redis.call(n)(1)", "return redis.call(n)(1)"),
        ("return redis.sha1hex(n)", "return redis.sha1hex(n)"),
        ("local redis = f() return redis.call(n)", "local redis = f() return redis.call(n)"),
        ("local r = redis.call r = f return r(n)", "local r = redis.call r = f return r(n)"),
        ("return 'open", "return 'open"),
    ] {
        let mut out = text.to_owned();
        for (at, what) in returning_values(text.as_bytes(), &CommandTable::builtin()).iter().rev() {
            out.insert_str(*at, if *what == Insertion::Open { "(" } else { ")" });
        }
        assert_eq!(out, expected);
    }
}
