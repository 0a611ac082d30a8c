-- Maintenance: while maintenance.lst says "closed" everybody gets 503, but for our own networks. To begin or to end: change the file, then mctunnelctl reload.
--   mctunnelctl lua maintenance.lua --policy maintenance --src 203.0.113.7
local state = { get = function(_, w, d) return w or d end, has = function() return true end }
local ours = { get = function(_, w, d) return w or d end, has = function() return true end }

mctunnel.policy("maintenance", function(c)
  if state:has("closed") and not mctunnel.cidr(c.src, ours) then
    return "deny", "We are working on it and will be back soon.", 503
  end
  return "allow"
end)
