mctunnel.policy('7', function(c)
error(setmetatable({}, { __tostring = function() while true do end end }))
end)
mctunnel.policy('8', function(c)
nothing()
end)
mctunnel.policy('9', function(c)

end)
mctunnel.policy('10', function(c)
return 1
end)
mctunnel.policy('11', function(c)
return true
end)
mctunnel.policy('12', function(c)
return 'allowed'
end)
mctunnel.policy('13', function(c)
return {}
end)
