-- Maintenance: while maintenance.lst says "closed" everybody gets 503, but for our own networks. To begin or to end: change the file, then mctunnelctl reload.
--   mctunnelctl lua maintenance.lua --policy maintenance --src 203.0.113.7
local state = mctunnel.list("maintenance.lst")
local ours = mctunnel.list("../office.lst")

mctunnel.policy("maintenance", function(c)
  if state:has("closed") and not mctunnel.cidr(c.src, ours) then
    return "deny", "We are working on it and will be back soon.", 503
  end
  return "allow"
end)
