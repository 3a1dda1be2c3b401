-- Stands in place of the prologue before scripts that use redis for nothing but redis.call and redis.pcall of named commands
-- whose only key is their first argument: so says their text. It does the same for them, at a fraction of the time.
-- What stands between two @ is put in by the proxy.
local redis = (function(P)
    local real, type, sub, n = redis, type, string.sub, #P
    -- The last two are the proxy's.
    local last = #KEYS
    KEYS[last], KEYS[last - 1] = nil, nil
    for i = 1, last - 2 do KEYS[i] = sub(KEYS[i], n + 1) end
    local function made(f)
        -- Two arguments there are, or more: so the text says.
        return function(c, k, ...)
            if type(k) == 'string' then local r = f(c, P .. k, ...) return r end
            if type(k) == 'number' then
                local whole = k == math.floor(k) and k > -2 ^ 53 and k < 2 ^ 53
                local r = f(c, P .. string.format(whole and '%.0f' or '%.17g', k), ...)
                return r
            end
            -- The server says what is wrong with it.
            local r = f(c, k, ...)
            return r
        end
    end
    return { call = made(real.call), pcall = made(real.pcall) }
end)(@PREFIX@);
