-- Names what a script asks for as it is kept. What stands between two @ is put in by the proxy.
local function @KEY@(key)
    local kind = type(key)
    if kind == 'string' then return @PREFIX@ .. key end
    -- What is wrong with any other the server says.
    if kind ~= 'number' then return key end
    if key ~= 0 and key == math.floor(key) and key > -2 ^ 53 and key < 2 ^ 53 then
        return @PREFIX@ .. string.format('%.0f', key)
    end
    -- How it writes numbers the server knows.
    return @PREFIX@ .. redis.call('ECHO', key)
end;
