mctunnel.policy('14', function(c)
return 'deny', {}
end)
mctunnel.policy('15', function(c)
return 'deny', 'x', 200
end)
mctunnel.policy('16', function(c)
return 'route', 'site-a'
end)
mctunnel.policy('17', function(c)
return 'route', 'a/b/c'
end)
mctunnel.policy('18', function(c)
return 'route'
end)
mctunnel.policy('19', function(c)
return 'route', ('x'):rep(70) .. '/web'
end)
mctunnel.policy('20', function(c)
c:limit_rate('fast')
end)
