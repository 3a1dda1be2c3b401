-- Takes from KEYS what the proxy has declared: the last of them, or the last two. What stands between two @ is put in by the proxy.
do
    local keys, last = KEYS, #KEYS
    if keys[last] == @GUARD@ then
        keys[last], last = nil, last - 1
    end
    keys[last] = nil
end;
