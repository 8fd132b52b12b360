#!lua flags=allow-oom
-- Expires overdue orders and releases the units that they hold: they are in stock again. Each product is changed once.
-- If one order or one product is damaged, the script fails, and no order is expired.
-- allow-oom: a full memory must not prevent the release of units that are held.
--
-- KEYS 1    {shop}:events          stream
--      2    {shop}:holds           zset, ids of pending orders, score = deadline in ms
--      3    {shop}:pending         zset, ids of pending orders, score = id
--      4..  {shop}:product:<id>    hash, each product of the orders once, on sale or withdrawn;
--                                  then {shop}:customer:<customer>, hash, each customer of the orders once;
--                                  then {shop}:order:<id>, hash, one per order
-- ARGV 1    events_max       approximate number of entries to keep in the stream
--      2    now_ms           ms since 1970; empty: use the clock of Redis
--      3    first_customer   position of the first customer in KEYS
--      4    first_order      position of the first order in KEYS
--      5..  for each order: order id, position of its customer in KEYS or 0, number of order lines, and for each line:
--           position of its product in KEYS, quantity in units
--
-- Replies: ended <word>...    one word per order. released: now expired; early: the deadline has not passed; absent:
--                             there is no such order; otherwise the status with which the order had ended before
local events_key, holds_key, pending_key = unpack(KEYS, 1, 3)
local events_max, now_ms, first_customer, first_order = unpack(ARGV, 1, 4)
local fixed_keys, fixed_args = 3, 4
first_customer, first_order = tonumber(first_customer), tonumber(first_order)

-- Decide. XLEN and ZCARD are called only because they fail on a key of another type, before anything is written.
redis.call('XLEN', events_key)
redis.call('ZCARD', holds_key)
redis.call('ZCARD', pending_key)
now_ms = tonumber(now_ms)
if not now_ms then
  local seconds, microseconds = unpack(redis.call('TIME'))
  now_ms = seconds * 1000 + math.floor(microseconds / 1000)
end
local words, expired, released, given_back = {}, {}, {}, {}
local next_arg = fixed_args + 1
for position = first_order, #KEYS do
  local order_id, customer_position, line_count = ARGV[next_arg], tonumber(ARGV[next_arg + 1]), tonumber(ARGV[next_arg + 2])
  local status, expires_at, products, reference, customer = unpack(
    redis.call('HMGET', KEYS[position], 'status', 'expires_at', 'products', 'reference', 'customer'))
  local word = status or 'absent'
  if word == 'pending' then
    word = now_ms >= tonumber(expires_at) and 'released' or 'early'
    assert((customer_position > 0) == (customer ~= false), 'the customer does not fit the order')
    if word == 'released' then
      local event = {'event', 'order_expired', 'order', order_id, 'products', assert(products)}
      if reference then event[#event + 1], event[#event + 2] = 'reference', reference end
      if customer then event[#event + 1], event[#event + 2] = 'customer', customer end
      expired[#expired + 1] = {position = position, id = order_id, event = event}
      local units = given_back[customer_position] or {}
      given_back[customer_position] = units
      for line = next_arg + 3, next_arg + 1 + 2 * line_count, 2 do
        local product, quantity = tonumber(ARGV[line]), tonumber(ARGV[line + 1])
        released[product] = (released[product] or 0) + quantity
        units[product] = (units[product] or 0) + quantity
      end
    end
  end
  words[#words + 1] = word
  next_arg = next_arg + 3 + 2 * line_count
end
assert(next_arg == #ARGV + 1, 'the lines do not fit the orders')
local product_ids, new_stock, new_held, new_units = {}, {}, {}, {}
for product = fixed_keys + 1, first_customer - 1 do
  local stock, held, product_id = unpack(redis.call('HMGET', KEYS[product], 'stock', 'held', 'id'))
  product_ids[product] = product_id
  new_stock[product] = string.format('%d', tonumber(stock) + (released[product] or 0))
  new_held[product] = string.format('%d', tonumber(held) - (released[product] or 0))
end
for customer = first_customer, first_order - 1 do
  for product, quantity in pairs(given_back[customer] or {}) do
    -- A damaged count of a customer must not keep units held: the audit reports it.
    local units = (tonumber(redis.call('HGET', KEYS[customer], product_ids[product])) or 0) - quantity
    new_units[#new_units + 1] = {customer = customer, product_id = product_ids[product], units = units}
  end
end

-- Write. XADD comes first: it is the only command here that can still fail, on a stream that has no id left.
if #expired == 0 then return {'ended', unpack(words)} end
local expired_ids = {}
for number, order in ipairs(expired) do
  redis.call('XADD', events_key, 'MAXLEN', '~', events_max, '*', unpack(order.event))
  redis.call('HSET', KEYS[order.position], 'status', 'expired')
  expired_ids[number] = order.id
end
redis.call('ZREM', holds_key, unpack(expired_ids))
redis.call('ZREM', pending_key, unpack(expired_ids))
for _, count in ipairs(new_units) do
  if count.units > 0 then redis.call('HSET', KEYS[count.customer], count.product_id, string.format('%.0f', count.units))
  else redis.call('HDEL', KEYS[count.customer], count.product_id) end
end
for product in pairs(released) do
  redis.call('HSET', KEYS[product], 'stock', new_stock[product], 'held', new_held[product])
end
return {'ended', unpack(words)}
