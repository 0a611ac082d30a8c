mctunnel.policy("p", function(c)
  for _, p in ipairs({ "a*b", "(%w+)%.(%w+)", "^/([^/]+)/?", "%b()", "%f[%w]%w+", "(a)(b)%1%2", "[]]", "[^%s]-$", "()", "%", "[", "(" }) do
    pcall(string.find, c.path, p) pcall(string.match, c.host, p) pcall(string.gsub, c.host, p, "%0%1")
    pcall(function() for x in c.host:gmatch(p) do c:log(x) end end)
  end
  return "allow"
end)
