mctunnel.policy('42', function(c)
local t = {} while true do t[#t + 1] = coroutine.create(function() coroutine.yield() end) coroutine.resume(t[#t]) end
end)
mctunnel.policy('43', function(c)
local t = setmetatable({}, { __index = function() while true do end end }) return t.x
end)
mctunnel.policy('44', function(c)
do local x <close> = setmetatable({}, { __close = function() while true do end end }) end
end)
mctunnel.policy('45', function(c)
local x <close> = setmetatable({}, { __close = function() while true do end end }) while true do end
end)
mctunnel.policy('46', function(c)
table.sort({ 3, 2, 1, 5, 4, 9, 7 }, function(a, b) while true do end end)
end)
mctunnel.policy('47', function(c)
(('x'):rep(1000)):gsub('x', function() while true do end end)
end)
mctunnel.policy('48', function(c)
local function f() return 1 + f() end f()
end)
