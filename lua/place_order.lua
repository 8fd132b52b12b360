#!lua
-- Places an order: takes the stock of all its lines and writes it down, or changes nothing.
--
-- KEYS 1    {shop}:order:<id>           hash, the order to write
--      2    {shop}:events               stream
--      3    {shop}:holds                zset, ids of pending orders, score = deadline in ms
--      4    {shop}:pending              zset, the same ids, score = id
--      5..  {shop}:product:<id>         hash, one a line
--      last {shop}:idempotency:<key>    hash, only where ARGV[4] is not empty
-- ARGV 1    order id, a fresh one
--      2    hold in ms of a pending order; empty: the order is completed at once
--      3    total in cents that the client expects, or empty
--      4    Idempotency-Key, or empty
--      5    fingerprint of the request
--      6    ms for which the key remembers a refusal
--      7    entries to keep in the stream, about
--      8    now in ms since 1970; empty: the server's clock
--      9..  product id, quantity: a pair a line, each product once
--
-- Replies: placed <total> <created_at ms> <expires_at ms, or empty> <price>...   (a price a line)
--          exists                           the order id is in use; nothing was changed
--          replayed <order id>              the key made this order before
--          refused <text>                   the key was refused before: one of the replies below, a line a word
--          reused                           the key came before with another fingerprint
--          unknown <line>...                some products are not on sale; lists the short ones, too
--          short <line>...                  a line: "<product id> <requested> <available, or unknown>"
--          price_changed <total> <line>...  every line: "<product id> <price>"
--          too_large                        the total is 2^53 cents or more
local id, hold, expected, key = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

-- Decide. XLEN and ZCARD are here to fail on a key of another type, before anything is written.
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists'} end
if key ~= '' then
  local known = redis.call('HMGET', KEYS[#KEYS], 'fingerprint', 'order', 'refusal')
  if known[1] and known[1] ~= ARGV[5] then return {'reused'} end
  if known[2] then return {'replayed', known[2]} end
  if known[3] then return {'refused', known[3]} end
end
redis.call('XLEN', KEYS[2])
if hold then redis.call('ZCARD', KEYS[3]); redis.call('ZCARD', KEYS[4]) end

local taken = hold and 'held' or 'sold'
local reason, faults, prices, readable, updates, cents = nil, {}, {}, {}, {}, 0
for i = 1, (#ARGV - 8) / 2 do
  local product, quantity = ARGV[7 + 2 * i], tonumber(ARGV[8 + 2 * i])
  local found = redis.call('HMGET', KEYS[4 + i], 'stock', taken, 'price', 'withdrawn')
  local stock = tonumber(found[1])
  if not stock or found[4] == '1' then
    reason = 'unknown'
    faults[#faults + 1] = string.format('%s %.0f unknown', product, quantity)
  elseif stock < quantity then
    reason = reason or 'short'
    faults[#faults + 1] = string.format('%s %.0f %.0f', product, quantity, stock)
  else
    prices[i], readable[i] = found[3], string.format('%s: %.0f x %s', product, quantity, found[3])
    updates[i] = {stock - quantity, tonumber(found[2]) + quantity} -- redis.call() writes integers exactly
    -- Exact: a price has 11 digits at the most, the double is off by far less than half a cent.
    cents = cents + math.floor(tonumber(found[3]) * 100 + 0.5) * quantity
  end
end
local total = string.format('%.0f.%02.0f', math.floor(cents / 100), cents % 100)
local refusal
if reason then
  refusal = {reason, unpack(faults)}
elseif cents >= 2 ^ 53 then
  refusal = {'too_large'}
elseif expected and expected ~= cents then
  for i, price in ipairs(prices) do prices[i] = ARGV[7 + 2 * i] .. ' ' .. price end
  refusal = {'price_changed', total, unpack(prices)}
end
local now = tonumber(ARGV[8])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local created, expires = string.format('%.0f', now), hold and string.format('%.0f', now + hold) or ''

-- Write. Nothing below can fail: all types are known, and the order's key is new.
if refusal then
  if key ~= '' then
    redis.call('HSET', KEYS[#KEYS], 'fingerprint', ARGV[5], 'refusal', table.concat(refusal, '\n'))
    redis.call('PEXPIRE', KEYS[#KEYS], ARGV[6])
  end
  return refusal
end
local status, products = hold and 'pending' or 'completed', table.concat(readable, '\n')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[7], '*',
  'event', 'order_placed', 'order', id, 'status', status, 'total_price', total, 'products', products)
redis.call('HSET', KEYS[1],
  'id', id, 'status', status, 'total_price', total, 'products', products, 'created_at', created)
if hold then
  redis.call('HSET', KEYS[1], 'expires_at', expires)
  redis.call('ZADD', KEYS[3], expires, id)
  redis.call('ZADD', KEYS[4], id, id)
end
if key ~= '' then
  redis.call('HSET', KEYS[1], 'idempotency_key', key)
  redis.call('HSET', KEYS[#KEYS], 'fingerprint', ARGV[5], 'order', id)
end
for i, update in ipairs(updates) do
  redis.call('HSET', KEYS[4 + i], 'stock', update[1], taken, update[2])
end
return {'placed', total, created, expires, unpack(prices)}
