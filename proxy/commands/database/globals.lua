-- Part of the prologue, for scripts that name other ways to what redis stands for: all of these lead to the database's world.
local hidden = { redis = shown, server = shown }
-- What is taken for its metatable is one that cannot be changed, as at a server.
local globals = readonly(hidden, all, readonly({}, nil))
local loadstring, load, getfenv, setfenv = loadstring, load, rawget(all, 'getfenv'), rawget(all, 'setfenv')
hidden._G = globals
function hidden.loadstring(code, name)
    if type(code) ~= 'string' then return loadstring(code, name) end
    local head = 'local redis, server, _G, load, loadstring, getfenv, setfenv = ... return function(...) '
    local made, why = loadstring(head .. code .. '\n end', name or code)
    if not made then return made, why end
    return made(shown, shown, globals, hidden.load, hidden.loadstring, hidden.getfenv, hidden.setfenv)
end
function hidden.load(piece, name)
    if type(piece) ~= 'function' then return load(piece, name) end
    local parts = {}
    while true do
        local part = piece()
        if not part or part == '' then break end
        parts[#parts + 1] = part
    end
    return hidden.loadstring(table.concat(parts), name or '=(load)')
end
-- Not every server has these two. A level of the stack is one deeper here.
function hidden.getfenv(of)
    if not getfenv then error("Script attempted to access nonexistent global variable 'getfenv'", 2) end
    if of == nil then of = 1 end
    local env = of == 0 and all or getfenv(type(of) == 'number' and of + 1 or of)
    return env == all and globals or env
end
function hidden.setfenv(of, env)
    if not setfenv then error("Script attempted to access nonexistent global variable 'setfenv'", 2) end
    local r = setfenv(type(of) == 'number' and of > 0 and of + 1 or of, env)
    return r
end
