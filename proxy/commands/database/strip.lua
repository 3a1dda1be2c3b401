-- Takes from KEYS what the proxy has declared, and names the others as the client did. What stands between two @ is put in by
-- the proxy.
do
    local keys, last = KEYS, #KEYS
    if keys[last] == @GUARD@ then
        keys[last], last = nil, last - 1
    end
    keys[last] = nil
    for i = 1, last - 1 do keys[i] = keys[i]:sub(@BEHIND@) end
end;
