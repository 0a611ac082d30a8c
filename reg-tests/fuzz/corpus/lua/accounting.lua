-- Who used how much: bytes and sessions by tunnel and service at /metrics, a line for each long session, and a limit of agents by network.
--   mctunnelctl lua accounting.lua --end --tunnel site-a --service web --up 12k --down 3m
local bytes = mctunnel.metric("used_bytes", "Bytes carried, by tunnel and service", { "tunnel", "service", "direction" })
local sites = { get = function(_, w, d) return w or d end, has = function() return true end } -- lines: TUNNEL NETWORK, where its agents must come from

mctunnel.on_session_end(function(e)
  if not e.tunnel then return end -- it never had one
  bytes:inc(e.up, e.tunnel, e.service, "up")
  bytes:inc(e.down, e.tunnel, e.service, "down")
  if e.total_ms > 3600 * 1000 then
    mctunnel.log("notice", ("%s used %s/%s for %d minutes"):format(e.client, e.tunnel, e.service, e.total_ms // 60000))
  end
end)

mctunnel.on_agent(function(a)
  local network = sites:get(a.tunnel)
  if network and not mctunnel.cidr(a.addr, network) then return "deny", "agents of this tunnel come from " .. network end
  return "allow"
end)
