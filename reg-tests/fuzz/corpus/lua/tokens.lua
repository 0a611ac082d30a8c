-- Bearer tokens: who has one gets in (and is counted), everybody else gets 401. A reload reads the tokens again.
--   mctunnelctl lua tokens.lua --policy tokens --host api --header 'Authorization: Bearer not-a-secret-1'
local owners = { get = function(_, w, d) return w or d end, has = function() return true end } -- lines: TOKEN OWNER
local failures = mctunnel.counter("token_failures", { size = 100000, expire = "10m" })
local requests = mctunnel.metric("token_requests", "Requests with a token, by its owner", { "owner" })

mctunnel.policy("tokens", function(c)
  if failures:rate(c.src, "1m") > 30 then return "deny", "too many wrong tokens", 429 end
  local token = (c.header("Authorization") or ""):match("^[Bb]earer +([%w%-._~+/]+=*)$")
  local owner = owners:get(token)
  if not owner then
    failures:incr(c.src)
    return "deny", "a valid bearer token is needed", 401
  end
  requests:inc(owner)
  return "allow"
end)
