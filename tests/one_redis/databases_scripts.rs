//! Scripts in a database of its own: they see what they would at one server, whatever keys they compute, and nothing else.

use slotway::commands::scripts::Sha;

use crate::support::{
    Cluster, Flavour, Node, Proxy, Settings, Setup, Shape,
    client::{frame, words},
};

fn in_database(cluster: &Cluster, name: &str) -> Proxy {
    Proxy::start(Settings::new(cluster.seeds()).with("DATABASE", name))
}

/// Scripts, each with its number of keys, keys and arguments behind `|`. What they leave is seen by those that follow.
const SCRIPTS: &[&str] = &[
    "return {KEYS, ARGV, #KEYS, #ARGV}|2|a|b|c|d",
    "return {KEYS, ARGV, #KEYS, #ARGV}|0",
    "return {KEYS, ARGV, KEYS[1], ARGV[2]}|0|x|y",
    "return {KEYS[1], #KEYS}|1|",
    "return redis.call('set', KEYS[1], ARGV[1])|1|a|1",
    // Keys that were never declared.
    "for i = 1, 20 do redis.call('SET', 'computed:' .. i, i) end return redis.call('GET', 'computed:7')|0",
    "return redis.call('MGET', 'computed:1', 'nothing', 'computed:2', KEYS[1])|1|computed:3",
    "local r = redis.call local n = 'ge' .. 't' return r(n, 'computed:1')|0",
    "return redis.call('incr', 42)|0",
    "return {redis.call('incr', 1e15), redis.call('exists', '1000000000000000')}|0",
    "redis.call('SET', 'x', 'computed:1') return {redis.call('GET', redis.call('GET', 'x'))}|0",
    // Keys that the text tells.
    "return {redis.call('SET', 'x' .. ARGV[1], 1), redis.call('GET', \"x\" .. ARGV[1]), redis.call('EXISTS', ARGV[1] .. 'x')}|0|y",
    "local a, b = 'told:' .. KEYS[1], KEYS[1] .. ':' .. ARGV[1] redis.call('SET', a, 1) redis.call('SET', b, 2) return {redis.call('MGET', a, b), a, KEYS, #KEYS}|1|k|v",
    "local ns = KEYS[1] local q = ns .. ':queue' redis.call('RPUSH', q, 'a') return {redis.call('LLEN', q), redis.call('RPOPLPUSH', q, ns .. ':done'), #KEYS}|2|ns|other",
    "local rcall = redis.call\nlocal k = 'alias' .. 1\nrcall('SET', k, rcall('TIME') and 1)\nreturn {rcall('GET', k), k}|0",
    "local function add(key, by) return redis.call('INCRBY', key, by) end return {add('added', 2), add(KEYS[1], 3), add(7, 1), add(7.25, 1), add(1e15, 1), add(1e16, 1), add(0.1, 1), add(-0.0, 1), add(1/0, 1), redis.call('EXISTS', 7, 7.25, '7', '7.25', 1e15, 'inf', '0.10000000000000001')}|1|k2",
    "local t = {} for i, k in ipairs(KEYS) do redis.call('SET', k .. i, i) t[i] = redis.call('GET', k .. i) end return {t, unpack(KEYS)}|2|a|b",
    "for i = 1, #KEYS do redis.call('SET', KEYS[i], i) end return redis.call('GET', KEYS[#KEYS])|3|l1|l2|l3",
    "return {redis.call('SET', [[long]], [==[x]==]), redis.call('GET', 'lo\\110g'), redis.call('GET', 'long')}|0",
    "return redis.call('GET', ARGV[1] and 'long' or 'short')|0|x",
    "local k = 'lo' if ARGV[1] then k = k .. 'ng' end return redis.call('GET', k)|0|x",
    "local k = {'x'} return redis.call('GET', k[1])|0",
    "return redis.call('GET', KEYS[1])|0",
    "return redis.call('GET', KEYS[1] .. 'x')|0",
    "return redis.call('GET', 'x' .. ARGV[1])|0",
    "local v return redis.call('GET', 'x' .. v .. 'y')|0",
    "\nlocal k = redis.call('GET', 'none')\nreturn redis.call('GET', k)|0",
    "\n\nredis.call('INCR', 'added' .. 'to', 'much')|0",
    "\nredis.call('LPUSH', 'added', 1)|0",
    "return redis.pcall('LPUSH', ARGV[1] .. 'ed', 1)|0|add",
    "do local k = 'x' .. 1 end return redis.call('GET', k)|0",
    "return redis.call('GET', 'a' 'b')|0",
    "redis.setresp(3) return redis.call('HGETALL', 'no' .. 'ne')|0",
    "#!lua flags=no-writes\nreturn redis.call('SET', 'x' .. 'y', 1)|0",
    // Names of keys in what is told.
    "local k = redis.call('KEYS', 'computed:1*') table.sort(k) return k|0",
    "local c, n = '0', 0 repeat local p = redis.call('SCAN', c, 'MATCH', 'computed:*', 'COUNT', 5) c = p[1] n = n + #p[2] for _, k in ipairs(p[2]) do if not string.find(k, '^computed:') then return k end end until c == '0' return n|0",
    "return redis.call('DBSIZE')|0",
    "return redis.call('EXISTS', redis.call('RANDOMKEY'))|0",
    "redis.call('RPUSH', 'l', 'a', 'b', 'c', '{scripted}d') return {redis.call('LMPOP', 2, 'none', 'l', 'LEFT'), redis.call('BLPOP', 'none', 'l', 0), redis.call('LPOP', 'l'), redis.call('RPOPLPUSH', 'l', 'm')}|0",
    "redis.call('ZADD', 'z', 1, 'a', 2.5, 'b', 3, 'c') return {redis.call('ZMPOP', '2', 'none', 'z', 'MIN'), redis.call('BZPOPMAX', 'z', 0), redis.call('ZRANGE', 'z', 0, -1)}|0",
    "redis.call('XADD', 's', '1-1', 'f', '{scripted}v') redis.call('XGROUP', 'CREATE', 's', 'g', 0) return {redis.call('XREAD', 'COUNT', 1, 'STREAMS', 's', 'none', 0, 0), redis.call('XREADGROUP', 'GROUP', 'g', 'c', 'STREAMS', 's', '>')}|0",
    "return redis.pcall('XREADGROUP', 'GROUP', 'nosuch', 'c', 'STREAMS', 's', '>')|0",
    "return redis.call('XREADGROUP', 'GROUP', 'nosuch', 'c', 'STREAMS', 's', '>')|0",
    "return redis.pcall('XINFO', 'CONSUMERS', 's', 'nosuch')|0",
    "return {redis.call('XREAD', 'STREAMS', 's', 'none', 9, 9)}|0",
    "return redis.pcall('XREAD', 'STREAMS', 's', 's', 9)|0",
    "redis.setresp(3) return redis.call('XREAD', 'STREAMS', 's', 0)|0",
    "redis.setresp(3) return redis.call('HGETALL', 'none')|0",
    // Every shape of where keys are.
    "redis.call('MSET', 'a', 1, 'b', 2) redis.call('RENAME', 'a', 'c') return redis.call('MGET', 'a', 'b', 'c')|0",
    "return redis.call('DEL', 'b', 'c', 'none', 'x')|0",
    "redis.call('SADD', 's1', 'a', 'b') redis.call('SADD', 's2', 'b') return {redis.call('SINTER', 's1', 's2'), redis.call('SINTERCARD', 2, 's1', 's2'), redis.call('SDIFFSTORE', 's3', 's1', 's2'), redis.call('SMOVE', 's1', 's4', 'a'), redis.call('SMEMBERS', 's4')}|0",
    "redis.call('ZADD', 'z1', 1, 'a') redis.call('ZADD', 'z2', 2, 'b') return {redis.call('ZUNIONSTORE', 'z3', 2, 'z1', 'z2', 'WEIGHTS', 2, 3), redis.call('ZRANGE', 'z3', 0, -1, 'WITHSCORES'), redis.call('ZUNION', 2, 'z1', 'z2'), redis.call('ZRANGESTORE', 'z4', 'z3', 0, 0)}|0",
    "redis.call('RPUSH', 'list', 3, 1, 2) redis.call('SORT', 'list', 'STORE', 'sorted', 'DESC') return {redis.call('LRANGE', 'sorted', 0, -1), redis.call('SORT', 'list', 'LIMIT', 0, 2)}|0",
    "redis.call('GEOADD', 'geo', 13.3, 38.1, 'p') redis.call('GEORADIUS', 'geo', 13, 38, 900, 'km', 'STORE', 'near') return {redis.call('ZCARD', 'near'), redis.call('GEOSEARCHSTORE', 'near2', 'geo', 'FROMLONLAT', 13, 38, 'BYRADIUS', 900, 'km')}|0",
    "redis.call('SETBIT', 'b1', 1, 1) return {redis.call('BITOP', 'NOT', 'b2', 'b1'), redis.call('OBJECT', 'ENCODING', 'list'), redis.call('MEMORY', 'USAGE', 'none'), redis.call('COPY', 'b1', 'b3'), redis.call('EXISTS', 'b1', 'b2', 'b3')}|0",
    "redis.call('PFADD', 'h1', 'a') redis.call('PFADD', 'h2', 'b') redis.call('PFMERGE', 'h3', 'h1', 'h2') return redis.call('PFCOUNT', 'h1', 'h2', 'h3')|0",
    // Without keys.
    "return {redis.call('PING'), redis.call('ECHO', 'e'), redis.sha1hex('x'), redis.call('PUBLISH', 'nobody', 'm')}|0",
    "return {redis.LOG_WARNING, type(redis.REDIS_VERSION), cjson.encode({a = 1}), cmsgpack.unpack(cmsgpack.pack('p')), bit.band(6, 3), #struct.pack('I', 1)}|0",
    "return redis.status_reply('fine')|0",
    "return redis.error_reply('MINE own')|0",
    "return redis.pcall('INCR', 'list')|0",
    "local ok, e = pcall(redis.call, 'INCR', 'list') return {ok, e.err}|0",
    "return redis.call('INCR', 'list')|0",
    "return redis.call('GET')|0",
    "return redis.call()|0",
    "return redis.call('GET', {})|0",
    "return redis.call('NOSUCH', 'a')|0",
    "return redis.call('OBJECT', 'NOSUCH', 'a')|0",
    "return redis.call('SUBSCRIBE', 'a')|0",
    "return redis.pcall('EXPIRE', 'list', 'x')|0",
    "return nosuch|0",
    "return redis.nosuch()|0",
    "nosuch = 1|0",
    "error('thrown')|0",
    "error({err = 'TABLE thrown'})|0",
    "return (|0",
    "local a = 1\nlocal b = 2\nerror('in line 3')|0",
    "local a = 1\n\nlocal b = a.b.c|0",
    "-- a comment\nreturn 1|0",
    "(function() end)() return 'begins with a bracket'|0",
    // Errors where the text does not tell which keys there are: they name the line that called.
    "local n = 'INCR'\n\nlocal r = redis.call(n, 'list') return r|0",
    "local n = 'INCR'\n\nreturn redis.call(n, 'list')|0",
    "local rcall, n = redis.call, 'INCR'\nlocal call = redis.call\nif n then\nreturn call(n, 'list')\nend|0",
    "local function f(n)\nreturn redis.call(n)\nend\n\nreturn f('GET')|0",
    "local n\n\nlocal ok, e = pcall(redis.call, n or 'INCR', 'list') return e|0",
    "local n = 'INCR'\nlocal ok, e = pcall(function() local r = redis.call(n, 'list') end)\n\nreturn e|0",
    "local n = 'INCR'\nlocal ok, e = pcall(function() local r = redis.call(n, 'list') end)\n\n\nerror(e)|0",
    "#!lua\n\nlocal n = 'INCR'\nlocal r = redis.call(n, 'list')|0",
    "local n = 'XREADGROUP'\n\nlocal r = redis.call(n, 'GROUP', 'g', 'c', 'STREAMS', 'nosuch', '>')|0",
    "\n\nlocal r = redis.call(KEYS)|0",
    "redis.setresp(3) local n = 'INCR' return redis.pcall(n, 'list')|0",
    "local t, n = {redis.call}, 'INCR' local r = redis.pcall(n, 'list') return {type(r), r.err, #t}|0",
    // Flags.
    "#!lua\nreturn redis.call('GET', KEYS[1])|1|computed:1",
    "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])|1|computed:1",
    "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 1)|1|a",
    "#!lua flags=nosuch\nreturn 1|0",
    "#!lua\n\nerror('in line 3')|0",
    "#!nosuch\nreturn 1|0",
    "#!lua|0",
    // Other ways to the same.
    "return loadstring('return redis.call(\"GET\", \"computed:2\")')()|0",
    "return loadstring('return ...')(7, 8)|0",
    "return loadstring('syntax error', 'name')|0",
    "return {loadstring('return (')}|0",
    "return load(coroutine.wrap(function() coroutine.yield('return ') coroutine.yield('_G.redis.call(\"GET\", \"computed:3\")') end))()|0",
    "return _G.redis.call('GET', 'computed:4')|0",
    "return _G['redis']['call']('GET', 'computed:4')|0",
    "return {_G.KEYS[1], _G.ARGV[1]}|1|k|a",
    "return type(_G._G.tostring)|0",
    "local ok, e = pcall(function() redis.call = 1 end) return {ok, e, type(redis.call)}|0",
    "local ok, e = pcall(function() redis.nosuch = 1 end) return {ok, e}|0",
    "local ok, e = pcall(function() _G.redis = 1 end) return {ok, e}|0",
    "_G.nosuch = 1|0",
    "return {redis.acl_check_cmd('GET', 'x'), redis.acl_check_cmd('xreadgroup', 'group', 'g', 'c', 'streams', 's', '>')}|0",
    "return redis.call('FLUSHDB', 'NOSUCH')|0",
    "return {redis.call('FLUSHALL'), redis.call('DBSIZE'), redis.call('KEYS', '*'), redis.call('RANDOMKEY')}|0",
];

/// Where a server has `getfenv`, it leads scripts to what `redis` stands for at the node.
#[test]
fn no_function_of_lua_leads_out_of_the_database() {
    if !Flavour::Valkey.is_here("databases_scripts") {
        return;
    }
    let config = vec!["lua-enable-insecure-api yes".to_owned()];
    let cluster = Cluster::start(Shape { flavour: Flavour::Valkey, primaries: 1, config, ..Shape::default() });
    let (proxy, neighbour) = (in_database(&cluster, "scripted"), in_database(&cluster, "neighbour"));
    neighbour.client().line("SET secret 1");
    let mut client = proxy.client();
    client.line("SET own 1");
    for script in [
        "return getfenv(1).redis.call('KEYS', '*')",
        "return getfenv(0).redis.call('KEYS', '*')",
        "return getfenv().redis.call('KEYS', '*')",
        "return getfenv(redis.call).redis.call('KEYS', '*')",
        "return getfenv(string.gsub)._G.redis.call('KEYS', '*')",
        "return _G.getfenv(1).redis.call('KEYS', '*')",
        "return _G['get' .. 'fenv'](1).server.call('KEYS', '*')",
        "return loadstring('return getfenv(1).redis.call(\"KEYS\", \"*\")')()",
        "local f = function() return redis.call('KEYS', '*') end setfenv(f, getfenv(f)) return f()",
        "local t = {} local f = loadstring('x = 1') setfenv(f, t) f() return t.x == 1 and redis.call('KEYS', '*')",
    ] {
        assert_eq!(client.call(&["EVAL", script, "0"]), "*1\r\n$3\r\nown\r\n", "{script}");
    }
}

#[test]
fn scripts_without_keys_run_where_the_database_is() {
    let cluster = Cluster::three();
    let proxy = in_database(&cluster, "scripted");
    cluster.nodes.iter().for_each(|node| drop(node.line("CONFIG RESETSTAT")));
    for _ in 0..8 {
        let mut client = proxy.client();
        assert_eq!(client.call(&["EVAL", "return 1", "0"]), ":1\r\n");
        assert_eq!(client.call(&["EVAL", "return redis.call('EXISTS', ARGV[1])", "0", "a"]), ":0\r\n");
        client.line("MULTI");
        client.call(&["EVAL", "return 1", "0"]);
        assert_eq!(client.line("EXEC"), "*1\r\n:1\r\n");
    }
    let stats = |index: &usize| String::from_utf8(cluster.node(*index).line("INFO commandstats").text()).expect("text");
    let ran = |index: &usize| stats(index).contains("cmdstat_eval");
    let all: Vec<usize> = (0..cluster.nodes.len()).filter(ran).collect();
    assert_eq!(all, [cluster.home_of("{scripted}")]);
}

#[test]
fn scripts_answer_as_at_one_server() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("databases_scripts") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let (proxy, oracle) = (in_database(&cluster, "scripted"), Node::start(&Setup { flavour, ..Setup::default() }));
        let neighbour = in_database(&cluster, "neighbour");
        neighbour.client().line("MSET computed:1 other a other list other");
        let mut wrong = Vec::new();
        for version in [2, 3] {
            let (mut ours, mut theirs) = (proxy.client_of(version), oracle.client());
            theirs.line(&format!("HELLO {version}"));
            // As a text, again, which goes by its digest, by the client's own digest, and within a transaction.
            for way in ["text", "text again", "digest", "transaction"] {
                for script in SCRIPTS {
                    let parts: Vec<&str> = script.split('|').collect();
                    let digest = String::from_utf8(Sha::of(parts[0].as_bytes()).digits().to_vec()).expect("digits");
                    let (name, code) = if way == "digest" { ("EVALSHA", &*digest) } else { ("EVAL", parts[0]) };
                    let request = [&[name, code], &parts[1..]].concat();
                    if way == "transaction" {
                        for client in [&mut ours, &mut theirs] {
                            client.line("MULTI");
                            client.call(&request);
                        }
                    }
                    let request = if way == "transaction" { vec!["EXEC"] } else { request };
                    let (ours, theirs) = (ours.call(&request), theirs.call(&request));
                    if ours != theirs {
                        wrong.push(format!("{flavour:?}, RESP{version}, {way}: {script}\n  {ours:?}\n  {theirs:?}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(neighbour.client().line("MGET computed:1 a list").texts(), ["other", "other", "other"]);
    }
}

#[test]
fn digests_are_the_clients_own() {
    let cluster = Cluster::three();
    let (proxy, oracle) = (in_database(&cluster, "digests"), Node::standalone());
    let (mut ours, mut theirs) = (proxy.client(), oracle.client());
    let sha = |text: &str| String::from_utf8(Sha::of(text.as_bytes()).digits().to_vec()).expect("digits");
    let (loaded, evaluated, failing) = ("return KEYS", "return 2", "return redis.call('INCR', KEYS[1])");
    for request in [
        &["SCRIPT", "LOAD", loaded][..],
        &["SCRIPT", "LOAD", "return ("],
        &["EVAL", evaluated, "0"],
        &["SCRIPT", "EXISTS", &sha(loaded), &sha(evaluated), &sha("never"), "x"],
        &["EVALSHA", &sha(loaded), "1", "k"],
        &["EVALSHA", &sha(loaded).to_uppercase(), "0"],
        &["EVALSHA", &sha(evaluated), "1", "k"],
        &["EVALSHA", &sha("never"), "0"],
        &["EVALSHA", "x", "0"],
        &["SET", "k", "text"],
        &["EVAL", failing, "1", "k"],
        &["EVALSHA", &sha(failing), "1", "k"],
        &["MULTI"],
        &["EVALSHA", &sha(failing), "1", "k"],
        &["SCRIPT", "LOAD", "return 'within'"],
        &["EVALSHA", &sha("never"), "0"],
        &["EXEC"],
        &["EVALSHA", &sha("return 'within'"), "0"],
        &["SCRIPT", "FLUSH"],
        &["SCRIPT", "EXISTS", &sha(loaded), &sha(evaluated)],
        &["EVALSHA", &sha(loaded), "0"],
    ] {
        assert_eq!(ours.call(request), theirs.call(request), "{request:?}");
    }
    // A node that has lost its scripts is given them.
    ours.call(&["SCRIPT", "LOAD", loaded]);
    cluster.nodes.iter().for_each(|node| drop(node.line("SCRIPT FLUSH")));
    assert_eq!(ours.call(&["EVALSHA", &sha(loaded), "1", "k"]), "*1\r\n$1\r\nk\r\n");
    // What somebody else has loaded, for all of the cluster, is no script of the database's.
    let whole = Proxy::before(&cluster);
    whole.client().call(&["SCRIPT", "LOAD", "return 'of others'"]);
    assert_eq!(ours.call(&["SCRIPT", "EXISTS", &sha("return 'of others'")]), "*1\r\n:0\r\n");
    assert!(ours.call(&["EVALSHA", &sha("return 'of others'"), "0"]).0.starts_with(b"-NOSCRIPT "));
}

#[test]
fn a_script_does_not_come_out_of_its_database() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("databases_scripts") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, primaries: 1, ..Shape::default() });
        let (inside, whole) = (in_database(&cluster, "cage"), Proxy::before(&cluster));
        let mut outside = whole.client();
        outside.line("MSET secret s x{cage}secret s");
        let mut client = inside.client();
        for script in [
            "return redis.call('GET', 'secret')",
            "return _G.redis.call('GET', 'secret')",
            "return rawget(_G, 'redis').call('GET', 'secret')",
            "return getmetatable(redis).__index.call('GET', 'secret')",
            "return getmetatable(_G).__index.redis.call('GET', 'secret')",
            "return loadstring('return redis')().call('GET', 'secret')",
            "return loadstring('return _G')().redis.call('GET', 'secret')",
            "return loadstring('end return redis.call(\"GET\", \"secret\") --')()",
            "return load(function() return nil end)()",
            "local done = false return load(function() if done then return nil end done = true return 'return redis' end)().call('GET', 'secret')",
            "return server.call('GET', 'secret')",
            "do local _VERSION = KEYS[1] end return redis.call('GET', _VERSION)",
            "do local k = 'x' .. 1 end k = 'secret' return redis.call('GET', k)",
            "local k = 'x' .. 1 return (function(k) return redis.call('GET', k) end)('secret')",
            "local k, x = KEYS[1], 1 for _, k in ipairs({'secret'}) do x = redis.call('GET', k) end return x",
            "local call = redis.call local t = {call = call} return t.call('GET', 'secret')",
            "local call = redis.call return (function(call) return call('GET', 'secret') end)(redis.call)",
            "local KEYS = {'secret'} return redis.call('GET', KEYS[1])",
            "local k = setmetatable({}, {__concat = function() return 'secret' end}) return redis.call('GET', k .. 'x')",
            "local slotway_key = function(k) return k end return redis.call('GET', slotway_key('secret'))",
            "local n = '--[[' local k = redis.call('GET', 'secret') n = ']]' return k",
            "return redis.call('GET', 'a' == 'b' and 'x' .. 'y' or 'secret')",
            "return coroutine.wrap(function() return redis.call('GET', 'secret') end)()",
            "return redis.call('get\\0', 'secret')",
            "return redis.call('  get', 'secret')",
            "return redis.call('append bitcount', 'secret')",
            "return redis.call('EVAL', 'return 1', 0)",
            "return redis.call('FCALL', 'f', 0)",
            "return redis.call('SCRIPT', 'LOAD', 'return 1')",
            "return redis.call('CLUSTER', 'GETKEYSINSLOT', '0', '10')",
            "return redis.call('SORT', 'nothing', 'BY', 'nosort', 'GET', 'secret')",
            "return redis.call('SORT', 'nothing', 'STORE\\0', 'secret')",
            "return redis.call('COPY', 'secret', 'mine', 'DB', 0)",
            "return redis.call('MIGRATE', '127.0.0.1', 1, 'secret', 0, 10)",
            "return redis.call('INFO', 'keyspace')",
            "return redis.call('PUBSUB', 'CHANNELS')",
            "local k = redis.call('KEYS', '*') return #k > 0 and k or nil",
            "KEYS[1] = 'secret' return redis.call('GET', KEYS[1])",
            "return redis.call('XREAD', 'STREAMS\\0x', 'secret', 0)",
            "string.sub = function() return '' end return redis.call('GET', 'secret')",
        ] {
            let reply = client.call(&["EVAL", script, "0"]);
            assert!(
                [":0\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n"].iter().any(|nothing| reply == *nothing) || reply.is_error(),
                "{flavour:?}: {script} -> {reply:?}"
            );
        }
        assert_eq!(client.line("FLUSHALL"), "+OK\r\n");
        assert_eq!(outside.line("MGET secret x{cage}secret").texts(), ["s", "s"]);
        assert_eq!(outside.line("DBSIZE").integer(), 2);
        assert!(client.call(&words("EVAL x -1 a")).is_error());
    }
}

/// Scripts of three calls, with how many keys they declare: as their text tells which arguments are keys.
const MEASURED: &[(&str, &str)] = &[
    (
        "1",
        "redis.call('incr', KEYS[1] .. ':c') redis.call('hset', KEYS[1] .. ':h', 'f', ARGV[1]) return redis.call('get', KEYS[1] .. ':c')",
    ),
    (
        "1",
        "redis.call('incr', 'c:' .. ARGV[1]) redis.call('hset', 'h:' .. ARGV[1], 'f', 1) return redis.call('get', 'c:' .. ARGV[1])",
    ),
    (
        "0",
        "redis.call('incr', 'c:' .. ARGV[1]) redis.call('hset', 'h:' .. ARGV[1], 'f', 1) return redis.call('get', 'c:' .. ARGV[1])",
    ),
    (
        "1",
        "local k = ARGV[9] or KEYS[1] redis.call('incr', k .. 'c') redis.call('expire', k .. 'c', 9) return redis.call('get', k)",
    ),
    ("1", "local k = KEYS[1] redis.call('set', k, 1) redis.call('mget', unpack(KEYS)) return redis.call('get', k)"),
];

#[test]
#[ignore = "it measures, by the node's clock: `cargo test --test integration -- --ignored --nocapture cost_a_node`"]
fn calls_cost_a_node_little_more_than_elsewhere() {
    const CALLS: usize = 2000;
    let cluster = Cluster::start(Shape { primaries: 1, ..Shape::default() });
    let (inside, whole) = (in_database(&cluster, "measured"), Proxy::before(&cluster));
    let mut clients = [whole.client(), inside.client()];
    for (keys, text) in MEASURED {
        let digest = clients.each_mut().map(|client| client.call(&["SCRIPT", "LOAD", text]).string());
        let call: &[&str] = if *keys == "0" { &["0", "arg"] } else { &["1", "key", "arg"] };
        let calls = frame(&[&["EVALSHA", &digest[0]], call].concat()).repeat(CALLS);
        let mut least = [f64::INFINITY; 2];
        for _ in 0..10 {
            for (client, least) in clients.iter_mut().zip(&mut least) {
                cluster.nodes[0].line("CONFIG RESETSTAT");
                client.send_raw(&calls);
                (0..CALLS).for_each(|_| assert!(!client.reply().is_error()));
                let told = cluster.nodes[0].line("INFO commandstats").string();
                let spent = told.split("cmdstat_evalsha:").nth(1).and_then(|rest| rest.split("usec_per_call=").nth(1));
                let spent = spent.and_then(|rest| rest.split(',').next()?.parse().ok()).expect("microseconds");
                *least = least.min(spent);
            }
        }
        println!(
            "{:.2} us in all of the cluster, {:.2} times as many in a database: {text}",
            least[0],
            least[1] / least[0]
        );
    }
}
