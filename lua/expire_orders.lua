#!lua flags=allow-oom
-- Expires overdue orders and releases the units that they hold: they are in stock again. Each product is changed once.
-- If one order or one product is damaged, the script fails, and no order is expired.
-- allow-oom: a full memory must not prevent the release of units that are held.
--
-- KEYS 1    {shop}:events          stream
--      2    {shop}:holds           zset, ids of pending orders, score = deadline in ms
--      3    {shop}:pending         zset, ids of pending orders, score = id
--      4..  {shop}:product:<id>    hash, each product of the orders once, on sale or withdrawn;
--                                  then {shop}:order:<id>, hash, one per order
-- ARGV 1    events_max    approximate number of entries to keep in the stream
--      2    now_ms        ms since 1970; empty: use the clock of Redis
--      3    first_order   position of the first order in KEYS
--      4..  for each order: order id, number of order lines, and for each line: position of its product in KEYS,
--           quantity in units
--
-- Replies: ended <word>...    one word per order. released: now expired; early: the deadline has not passed; absent:
--                             there is no such order; otherwise the status with which the order had ended before
local events_key, holds_key, pending_key = unpack(KEYS, 1, 3)
local events_max, now_ms, first_order = unpack(ARGV, 1, 3)
local fixed_keys, fixed_args = 3, 3

-- Decide. XLEN and ZCARD are called only because they fail on a key of another type, before anything is written.
redis.call('XLEN', events_key)
redis.call('ZCARD', holds_key)
redis.call('ZCARD', pending_key)
now_ms = tonumber(now_ms)
if not now_ms then
  local seconds, microseconds = unpack(redis.call('TIME'))
  now_ms = seconds * 1000 + math.floor(microseconds / 1000)
end
local words, expired, expired_ids, expired_products, released = {}, {}, {}, {}, {}
local next_arg = fixed_args + 1
for position = tonumber(first_order), #KEYS do
  local order_id, line_count = ARGV[next_arg], tonumber(ARGV[next_arg + 1])
  local status, expires_at, products = unpack(redis.call('HMGET', KEYS[position], 'status', 'expires_at', 'products'))
  local word = status or 'absent'
  if word == 'pending' then
    word = now_ms >= tonumber(expires_at) and 'released' or 'early'
    if word == 'released' then
      local number = #expired + 1
      expired[number], expired_ids[number], expired_products[number] = position, order_id, assert(products)
      for line = next_arg + 2, next_arg + 2 * line_count, 2 do
        local product = tonumber(ARGV[line])
        released[product] = (released[product] or 0) + tonumber(ARGV[line + 1])
      end
    end
  end
  words[#words + 1] = word
  next_arg = next_arg + 2 + 2 * line_count
end
assert(next_arg == #ARGV + 1, 'the lines do not fit the orders')
local new_stock, new_held = {}, {}
for product = fixed_keys + 1, first_order - 1 do
  local stock, held = unpack(redis.call('HMGET', KEYS[product], 'stock', 'held'))
  new_stock[product] = string.format('%d', tonumber(stock) + (released[product] or 0))
  new_held[product] = string.format('%d', tonumber(held) - (released[product] or 0))
end

-- Write. XADD comes first: it is the only command here that can still fail, on a stream that has no id left.
if #expired == 0 then return {'ended', unpack(words)} end
for number, position in ipairs(expired) do
  redis.call('XADD', events_key, 'MAXLEN', '~', events_max, '*',
    'event', 'order_expired', 'order', expired_ids[number], 'products', expired_products[number])
  redis.call('HSET', KEYS[position], 'status', 'expired')
end
redis.call('ZREM', holds_key, unpack(expired_ids))
redis.call('ZREM', pending_key, unpack(expired_ids))
for product in pairs(released) do
  redis.call('HSET', KEYS[product], 'stock', new_stock[product], 'held', new_held[product])
end
return {'ended', unpack(words)}
