-- The requests that wrk sends, and the counters of its answers.
-- Arguments: kind of load, lines per order, number of products.
local kind, lines, products
local threads = {}
local headers = {['Content-Type'] = 'application/json'}
local started, keys_used = os.time(), 0
ok, created, refused, overloaded, other = 0, 0, 0, 0, 0

function setup(thread) threads[#threads + 1] = thread end

function init(args)
  kind, lines, products = args[1], tonumber(args[2]), tonumber(args[3])
  math.randomseed(1)  -- every server gets the same requests
end

local function order(fields)
  local chosen, parts = {}, {}
  while #parts < lines do
    local product = math.random(products)
    if not chosen[product] then
      chosen[product] = true
      parts[#parts + 1] = '{"product_id": ' .. product .. ', "quantity": ' .. math.random(3) .. '}'
    end
  end
  return wrk.format('POST', '/orders', headers, '{"products": [' .. table.concat(parts, ', ') .. ']' .. fields .. '}')
end

local make = {
  orders = function() return order('') end,
  keyed = function()
    keys_used = keys_used + 1
    headers['Idempotency-Key'] = started .. '-' .. keys_used
    return order('')
  end,
  replay = function()  -- of 500 keys. The first request with a key places an order, all others return that order
    headers['Idempotency-Key'] = 'replay-' .. math.random(500)
    return wrk.format('POST', '/orders', headers,
      '{"products": [{"product_id": 1, "quantity": 1}, {"product_id": 2, "quantity": 2}]}')
  end,
  pending = function() return order(', "status": "pending", "hold_seconds": 1') end,
  flash = function() return wrk.format('POST', '/orders', headers, '{"products": [{"product_id": 1, "quantity": 1}]}') end,
  page = function() return wrk.format('GET', '/products?limit=100') end,
  pages = function() return wrk.format('GET', '/products?limit=100&after=' .. math.random(0, products - 100)) end,
  order_pages = function() return wrk.format('GET', '/orders?limit=100&before=' .. math.random(102, products)) end,
  product = function() return wrk.format('GET', '/products/' .. math.random(products)) end,
}
make.sold_out = make.orders
make.mixed = function()
  local percent = math.random(100)
  return percent <= 10 and make.orders() or percent <= 55 and make.page() or make.product()
end

function request() return make[kind]() end

function response(status)
  if status == 200 then ok = ok + 1
  elseif status == 201 then created = created + 1
  elseif status == 409 then refused = refused + 1
  elseif status == 503 then overloaded = overloaded + 1
  else other = other + 1 end
end

function done(summary, latency)
  local sums = {ok = 0, created = 0, refused = 0, overloaded = 0, other = 0}
  for _, thread in ipairs(threads) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
  end
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "ok": %d, "created": %d, "refused": %d, "overloaded": %d, '
      .. '"other": %d, "broken": %d, "p50_ms": %.3f, "p99_ms": %.3f, "p999_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, sums.ok, sums.created, sums.refused, sums.overloaded,
    sums.other, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3))
end
