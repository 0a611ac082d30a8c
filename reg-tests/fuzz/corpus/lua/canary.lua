-- A canary: who asks for it by a header, and five of a hundred client addresses, get the new version; each client always the same.
--   mctunnelctl lua canary.lua --policy canary --host www --header 'X-Canary: yes'
local share = 5 -- of a hundred
local old, new = "site-a/web", "site-a/web-next"
local sent = mctunnel.metric("canary_requests", "Requests by version", { "version" })

-- Spreads addresses evenly; any function of the address alone would do.
local function slice(text)
  local h = 5381
  for i = 1, #text do h = (h * 33 + text:byte(i)) % 4294967296 end
  return (h // 7) % 100
end

mctunnel.policy("canary", function(c)
  local wish = c.header("X-Canary")
  local canary = wish == "yes" or (wish ~= "no" and slice(c.src) < share)
  sent:inc(canary and "new" or "old")
  return "route", canary and new or old
end)
