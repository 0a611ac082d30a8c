-- Limits for each tenant, named by the first label of the host: requests in ten seconds, and bandwidth of each session.
--   mctunnelctl lua tenants.lua --policy tenants --host acme.example.com --times 150
local plans = {
  free = { requests = 100, bandwidth = "256k" },
  paid = { requests = 2000, bandwidth = "10m" },
}
local tenants = { get = function(_, w, d) return w or d end, has = function() return true end } -- lines: TENANT PLAN
local requests = mctunnel.counter("tenants", { size = 50000, expire = "1m" })
local refused = mctunnel.metric("tenant_refused", "Requests over a tenant's limit", { "tenant" })

mctunnel.policy("tenants", function(c)
  local tenant = c.host and c.host:match("^([^.]+)%.")
  local plan = plans[tenants:get(tenant, "free")]
  if not tenant or not plan then return "deny", "no such tenant", 404 end
  requests:incr(tenant)
  if requests:rate(tenant, "10s") > plan.requests then
    refused:inc(tenant)
    return "deny", "over the limit of your plan", 429
  end
  c:limit_rate(plan.bandwidth)
  return "allow"
end)
