-- Stands before a client's script, on its first line: the script sees the world of its database. KEYS are named as the client
-- named them; what it asks for by redis.call and its kin is named as it is kept, and told without that. Nothing of this is
-- reachable for the script, and nothing else that would be: whoever has redis has the keys of all databases.
-- What stands between two @ is put in by the proxy.
local redis, server@GLOBAL NAMES@ = (function(P, Q, S, T)
    local real, all, n = redis, _G, #P
    local sub, lower, find, match, floor = string.sub, string.lower, string.find, string.match, math.floor
    local type, select, unpack, error, pcall = type, select, unpack, error, pcall
    local setmetatable, rawset, rawget, tonumber, ipairs = setmetatable, rawset, rawget, tonumber, ipairs
    -- What fails under f is told to the script as a value; whether it is thrown is decided where the script has called.
    local call, f = real.call, real.pcall
    -- The last is the proxy's, or the last two.
    local last = #KEYS
    if KEYS[last] == @GUARD@ then KEYS[last], last = nil, last - 1 end
    KEYS[last] = nil
    for i = 1, last - 1 do KEYS[i] = sub(KEYS[i], n + 1) end
    -- What few scripts need is made when it is needed.
    local slow, convert
    local function engine()
        local function text(v)
            if type(v) ~= 'number' then return v end
            if v ~= 0 and v == floor(v) and v > -2 ^ 53 and v < 2 ^ 53 then return string.format('%.0f', v) end
            -- How it writes numbers the server knows.
            return call('ECHO', v)
        end
        local function key(k)
            k = text(k)
            if type(k) == 'string' then return P .. k end
            return k
        end
        local function own(k)
            if type(k) == 'string' and sub(k, 1, n) == P then return sub(k, n + 1) end
            return k
        end
        local function fail(why) return { err = why } end
        -- An option, as servers compare it: no further than to a NUL.
        local function option(v)
            return type(v) == 'string' and string.upper(match(v, '^[^%z]*')) or ''
        end
        -- Where the keys of a command are: b:last:step, or b#count:first:step; what its reply tells behind a slash.
        local function rule(name)
            if find(@ONE@, ' ' .. name .. ' ', 1, true) then return '1:0:1' end
            local _, last = find(@SOME@, ' ' .. name .. '=', 1, true)
            return last and match(@SOME@, '^[^ ]+', last + 1)
        end
        local function places(a, m, code)
            for spec in string.gmatch(match(code, '^[^/]*'), '[^;]+') do
                local b, kind, x, y, z = match(spec, '^(%d+)([:#])(-?%d+):(%d+):?(%d*)$')
                local first, last, step = tonumber(b), tonumber(x), tonumber(y)
                if kind == ':' then
                    if last < 0 then last = m + last else last = first + last end
                else
                    local count = tonumber(a[first + last + 1])
                    first, step = first + step, tonumber(z)
                    last = count and first + (count - 1) * step or -1
                end
                if last > m - 1 then last = m - 1 end
                for i = first, last, step do a[i + 1] = key(a[i + 1]) end
            end
        end
        local special = {}
        function special.x(a, m)
            local at = 1
            while at < m do
                local o = option(a[at + 1])
                if o == 'STREAMS' then
                    local rest = m - at - 1
                    if rest % 2 == 0 then
                        for i = at + 1, at + rest / 2 do a[i + 1] = key(a[i + 1]) end
                    end
                    return
                elseif o == 'BLOCK' or o == 'COUNT' or o == 'CLAIM' then at = at + 2
                elseif o == 'GROUP' then at = at + 3
                elseif o == 'NOACK' then at = at + 1
                else break end
            end
            return 'ERR syntax error'
        end
        function special.o(a, m)
            a[2] = key(a[2])
            local at = 2
            while at < m do
                local o, left = option(a[at + 1]), m - at - 1
                if o == 'LIMIT' and left >= 2 then at = at + 2
                elseif o == 'STORE' and left >= 1 then
                    at = at + 1
                    a[at + 1] = key(a[at + 1])
                elseif (o == 'BY' or o == 'GET') and left >= 1 then
                    at = at + 1
                    local p = a[at + 1]
                    if type(p) == 'string' and (find(p, '*', 1, true) or o == 'GET' and p ~= '#') then a[at + 1] = P .. p end
                end
                at = at + 1
            end
        end
        function special.g(a, m)
            a[2] = key(a[2])
            local at = 5
            while at + 1 < m do
                local o = option(a[at + 1])
                if o == 'STORE' or o == 'STOREDIST' then
                    at = at + 1
                    a[at + 1] = key(a[at + 1])
                end
                at = at + 1
            end
        end
        function special.c(a, m)
            for at = 3, m - 1 do
                if option(a[at + 1]) == 'DB' then
                    return "ERR proxy: COPY is not served in the database '@DATABASE@': option DB: the other database is in another slot; DUMP here and RESTORE there copy a key (SLOTWAY-REFUSED-IN-DATABASE)"
                end
            end
            a[2], a[3] = key(a[2]), key(a[3])
        end
        function special.p(a, m)
            local c = text(a[2])
            if type(c) == 'string' then a[2] = @CHANNELS@ .. c end
        end
        function special.q(a, m)
            if @CHANNELS@ ~= '' then
                return "ERR proxy: " .. string.upper(a[1]) .. " is not served in the database '@DATABASE@' by scripts"
            end
        end
        local function within(count)
            local keys = {}
            for _, k in ipairs(call('CLUSTER', 'GETKEYSINSLOT', S, count)) do
                if sub(k, 1, n) == P then keys[#keys + 1] = k end
            end
            return keys
        end
        local whole = {}
        function whole.k(a, m)
            if m ~= 2 then local r = f(unpack(a, 1, m)) return r end
            local r = f(a[1], Q .. text(a[2]))
            return r
        end
        function whole.n(a, m)
            local b = { a[1], a[2], 'MATCH', Q .. '*' }
            for at = 3, m, 2 do
                b[#b + 1] = a[at]
                if at < m then b[#b + 1] = option(a[at]) == 'MATCH' and Q .. text(a[at + 1]) or a[at + 1] end
            end
            if m < 2 then b = a end
            local r = f(unpack(b))
            return r
        end
        function whole.d(a, m)
            if m > 1 then local r = f(unpack(a, 1, m)) return r end
            local count = call('CLUSTER', 'COUNTKEYSINSLOT', S)
            local own = #within(math.min(count, 10000))
            return count > 10000 and floor(count * own / 10000 + 0.5) or own
        end
        function whole.r(a, m)
            if m > 1 then local r = f(unpack(a, 1, m)) return r end
            local count = call('CLUSTER', 'COUNTKEYSINSLOT', S)
            local keys = within(math.min(count, 1024))
            if #keys == 0 then keys = within(count) end
            if #keys == 0 then return false end
            return keys[1 + tonumber(call('TIME')[2]) % #keys]
        end
        function whole.f(a, m)
            local how = option(a[2])
            if m > 2 or m == 2 and how ~= 'SYNC' and how ~= 'ASYNC' then return fail('ERR syntax error') end
            local others = 0
            while true do
                local met = #call('CLUSTER', 'GETKEYSINSLOT', S, 1000 + others)
                local keys = within(1000 + others)
                if #keys == 0 and met < 1000 + others then return { ok = 'OK' } end
                others = met - #keys
                for first = 1, #keys, 1000 do
                    local r = f('UNLINK', unpack(keys, first, math.min(#keys, first + 999)))
                    if type(r) == 'table' and r.err then return r end
                end
            end
        end
        function whole.a(a, m)
            if @SEVERAL@ then
                return fail("ERR proxy: FLUSHALL is not served in the database '@DATABASE@' by scripts (SLOTWAY-REFUSED-IN-DATABASE)")
            end
            local r = whole.f(a, m)
            return r
        end
        local function group(e)
            if sub(e, 1, 21) == "NOGROUP No such key '" then return sub(e, 1, 21) .. own(sub(e, 22)) end
            local head, last = match(e, "^(NOGROUP No such consumer group '.*' for key name ')(.*)$")
            return head and head .. own(last) or e
        end
        local tell = {}
        function tell.K(r) return own(r) end
        function tell.E(r)
            for i, k in ipairs(r) do r[i] = own(k) end
            return r
        end
        function tell.F(r)
            r[1] = own(r[1])
            return r
        end
        function tell.P(r)
            if type(r[2]) == 'table' then tell.E(r[2]) end
            return r
        end
        function tell.S(r)
            if r.map then
                local map = {}
                for k, v in pairs(r.map) do map[own(k)] = v end
                return { map = map }
            end
            for _, stream in ipairs(r) do stream[1] = own(stream[1]) end
            return r
        end
        tell.G = function(r) return r end
        function slow(...)
            local m, a = select('#', ...), { ... }
            local c = a[1]
            if m == 0 then local r = f() return r end
            if type(c) ~= 'string' then local r = f(c) return r end
            local name = lower(c)
            local code = rule(name)
            if code == '|' then
                if type(a[2]) ~= 'string' then local r = f(c) return r end
                name = name .. '|' .. lower(a[2])
                code = rule(name)
            end
            if not code then
                if not call('COMMAND', 'INFO', name)[1] then
                    -- There is none: the server says so. What would be its arguments stays here.
                    local r = find(name, '|', 1, true) and f(c, a[2]) or f(c)
                    return r
                end
                return fail("ERR proxy: " .. string.upper(c) .. " is not served in the database '@DATABASE@' by scripts (SLOTWAY-REFUSED-IN-DATABASE)")
            end
            local kind, tells = sub(code, 1, 1), match(code, '/(.)$')
            local r
            if whole[kind] then r = whole[kind](a, m)
            else
                local wrong
                if special[kind] then wrong = special[kind](a, m) elseif kind ~= '-' then places(a, m, code) end
                if wrong then return fail(wrong) end
                r = f(unpack(a, 1, m))
                if (tells == 'S' or tells == 'G') and type(r) == 'table' and r.err then r.err = group(r.err) end
            end
            if not tells or type(r) == 'table' and r.err or not r or tells ~= 'K' and type(r) ~= 'table' then return r end
            return tell[tells](r)
        end
        function convert(...)
            local m, a = select('#', ...), { ... }
            local name = type(a[1]) == 'string' and lower(a[1]) or ''
            local code = rule(name)
            if code == '|' and type(a[2]) == 'string' then code = rule(name .. '|' .. lower(a[2])) end
            local kind = code and sub(code, 1, 1) or '-'
            if special[kind] then special[kind](a, m) elseif find(kind, '%d') then places(a, m, code) end
            return unpack(a, 1, m)
        end
    end
    -- Throws an error as if the script's line had that called: a server asks for the line only when nobody catches the error,
    -- and would take the prologue's. A script that returns nothing but a call (return redis.call(...)) has given up its line.
    local function throw(err)
        local _, place = pcall(error, '', 4)
        local line = tonumber(match(place, ':(%d+): $'))
        if line then
            local _, place = pcall(error, '', 2)
            local own = tonumber(match(place, ':(%d+): $'))
            setmetatable(err, { __newindex = function(t, k, v)
                rawset(t, k, k == 'line' and v == own and line or v)
            end })
        end
        error(err)
    end
    local function made(throws)
        return function(...)
            local c, k = ...
            local r
            if T[c] and type(k) == 'string' then
                r = f(c, P .. k, select(3, ...))
            else
                if not slow then engine() end
                r = slow(...)
            end
            if throws and type(r) == 'table' and r.err then throw(r) end
            return r
        end
    end
    -- A table that is empty: so nothing is assigned to it unnoticed.
    local function refuse() error('Attempt to modify a readonly table', 2) end
    local function readonly(fields, others, metatable)
        setmetatable(fields, { __index = others })
        return setmetatable({}, { __index = fields, __newindex = refuse, __metatable = metatable or false })
    end
    local own = { call = made(true), pcall = made(false) }
    function own.acl_check_cmd(...)
        if not slow then engine() end
        local r = real.acl_check_cmd(convert(...))
        return r
    end
    local shown = readonly(own, real)
    @GLOBALS@
    return shown, shown@GLOBAL VALUES@
end)(@PREFIX@, @PATTERN@, @SLOT@, @NAMES@);
