mctunnel.policy('21', function(c)
c:limit_rate(0)
end)
mctunnel.policy('22', function(c)
c:limit_rate(-5)
end)
mctunnel.policy('23', function(c)
return c.hots
end)
mctunnel.policy('24', function(c)
return c[{}]
end)
mctunnel.policy('25', function(c)
c.host = 'x'
end)
mctunnel.policy('26', function(c)
while true do end
end)
mctunnel.policy('27', function(c)
while true do pcall(function() while true do end end) end
end)
