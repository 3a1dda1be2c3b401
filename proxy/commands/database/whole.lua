-- What is about a whole database, run by the node that has its slot, for as long as it has all of it (KEYS). ARGV: what is
-- asked, the slot, the prefix, and what belongs to what is asked.
local what, slot, prefix = ARGV[1], ARGV[2], ARGV[3]
local call, sub, byte, n = redis.call, string.sub, string.byte, #ARGV[3]
-- So many keys of a slot are looked at, so that those of others are not counted: beyond, these tell how many of all are others'.
local few = 10000
local function count() return call('CLUSTER', 'COUNTKEYSINSLOT', slot) end
-- The database's among so many keys of the slot, which may have others.
local function among(most)
    local keys = {}
    for _, key in ipairs(call('CLUSTER', 'GETKEYSINSLOT', slot, most)) do
        if sub(key, 1, n) == prefix then keys[#keys + 1] = key end
    end
    return keys
end
-- Whether s matches the pattern p, from i and j on, as servers have it (stringmatchlen). Where it does not, the second
-- result says that it would not from further on either.
local function glob(p, i, s, j)
    while i <= #p and j <= #s do
        local c = byte(p, i)
        if c == 42 then
            while byte(p, i + 1) == 42 do i = i + 1 end
            if i == #p then return true end
            while j <= #s do
                local is, hopeless = glob(p, i + 1, s, j)
                if is or hopeless then return is, hopeless end
                j = j + 1
            end
            return false, true
        elseif c == 91 then
            i = i + 1
            local negated = byte(p, i) == 94
            if negated then i = i + 1 end
            local is, d = false, byte(s, j)
            while true do
                local a = byte(p, i)
                if a == 92 and i < #p then
                    i = i + 1
                    if byte(p, i) == d then is = true end
                elseif a == 93 then break
                elseif not a then
                    i = i - 1
                    break
                elseif i + 2 <= #p and byte(p, i + 1) == 45 then
                    local b = byte(p, i + 2)
                    i = i + 2
                    if d >= math.min(a, b) and d <= math.max(a, b) then is = true end
                elseif a == d then is = true end
                i = i + 1
            end
            if is == negated then return false end
        elseif c ~= 63 then
            if c == 92 and i < #p then i = i + 1 end
            if byte(p, i) ~= byte(s, j) then return false end
        end
        i, j = i + 1, j + 1
        if j > #s then
            while byte(p, i) == 42 do i = i + 1 end
        end
    end
    return i > #p and j > #s
end
-- The database's keys that match: by the slot, unless it has most of what the node has.
local function matching(pattern, real)
    local all, keys = count(), {}
    if all * 4 > call('DBSIZE') then return call('KEYS', real) end
    for _, key in ipairs(among(all)) do
        if (pattern == '*' or glob(pattern, 1, key, n + 1)) and call('EXISTS', key) == 1 then keys[#keys + 1] = key end
    end
    return keys
end
local asks = {}
-- Behind: the pattern, and the pattern of keys as they are kept.
function asks.keys()
    local keys = matching(ARGV[4], ARGV[5])
    for i, key in ipairs(keys) do keys[i] = sub(key, n + 1) end
    return keys
end
function asks.count()
    local all = count()
    local own = #among(math.min(all, few))
    return all > few and math.floor(all * own / few + 0.5) or own
end
-- Of many keys, some tell how many expire.
function asks.keyspace()
    local all, keys = asks.count(), among(math.min(count(), 1000))
    local expire, left = 0, 0
    for _, key in ipairs(keys) do
        local ttl = call('PTTL', key)
        if ttl >= 0 then
            expire = expire + 1
            left = left + ttl
        end
    end
    local share = #keys > 0 and all > #keys and all / #keys or 1
    return { all, math.floor(expire * share), expire > 0 and math.floor(left / expire) or 0 }
end
function asks.random()
    for _ = 1, 16 do
        local key = call('RANDOMKEY')
        if key and sub(key, 1, n) == prefix then return sub(key, n + 1) end
    end
    local all = count()
    for _, most in ipairs({ math.min(all, few), all }) do
        local keys, some = among(most), {}
        for _, key in ipairs(keys) do
            if call('EXISTS', key) == 1 then some[#some + 1] = key end
        end
        if #some > 0 then return sub(some[1 + tonumber(call('TIME')[2]) % #some], n + 1) end
    end
    return false
end
-- A thousand at a time; those of others that were met are met again.
function asks.flush()
    local others = 0
    while true do
        local met = #call('CLUSTER', 'GETKEYSINSLOT', slot, 1000 + others)
        local keys = among(1000 + others)
        if #keys == 0 and met < 1000 + others then return { ok = 'OK' } end
        others = met - #keys
        for first = 1, #keys, 1000 do call('UNLINK', unpack(keys, first, math.min(#keys, first + 999))) end
    end
end
-- Behind: the cursor, whether all is told at once, how the prefix begins a pattern, and SCAN's options. A small database is
-- one page, whatever its node has beside it; a large one is scanned as its node does that.
function asks.scan()
    local cursor, at_once, escaped, options = ARGV[4], ARGV[5] == '1', ARGV[6], { unpack(ARGV, 7) }
    local tried = { unpack(options) }
    if #tried % 2 == 0 then
        tried[#tried + 1] = 'COUNT'
        tried[#tried + 1] = '1'
    end
    local said = redis.pcall('SCAN', cursor, unpack(tried))
    if said.err then return said end
    local is_whole = type(redis.pcall('EXISTS', prefix .. '\0slotway1')) == 'number'
    if not (at_once or cursor == '0' and is_whole and count() <= 1000) then
        return call('SCAN', cursor, unpack(options))
    end
    local real, kind
    for at = 1, #options, 2 do
        local option = string.upper(options[at])
        if option == 'MATCH' then real = options[at + 1] end
        if option == 'TYPE' then kind = string.lower(options[at + 1]) end
    end
    local keys = {}
    for _, key in ipairs(matching(sub(real, #escaped + 1), real)) do
        if not kind or call('TYPE', key).ok == kind then keys[#keys + 1] = at_once and sub(key, n + 1) or key end
    end
    return { '0', keys }
end
return asks[what]()
