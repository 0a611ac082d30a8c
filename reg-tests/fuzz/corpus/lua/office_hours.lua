-- Office hours: from Monday to Friday, 8 to 18 o'clock local time; never on a holiday; at any time for those who are on duty.
--   listeners = ( { name = "ssh"; ...; policy = "office_hours"; } );
--   mctunnelctl lua office_hours.lua --policy office_hours --src 192.0.2.7
local first, last = 8, 18
local on_duty = { "10.0.9.0/24", "2001:db8:9::/64" }
local holidays = { get = function(_, w, d) return w or d end, has = function() return true end } -- lines such as 12-25

local function open(now)
  if now.weekday == "sat" or now.weekday == "sun" then return false, "closed at the weekend" end
  if holidays:has(("%02d-%02d"):format(now.month, now.day)) then return false, "closed on a holiday" end
  if now.hour < first or now.hour >= last then return false, ("closed, open from %d to %d"):format(first, last) end
  return true
end

mctunnel.policy("office_hours", function(c)
  if mctunnel.cidr(c.src, table.unpack(on_duty)) then return "allow" end
  local ok, why = open(mctunnel.date())
  if not ok then return "deny", why end
  return "allow"
end)
