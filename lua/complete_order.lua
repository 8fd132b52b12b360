#!lua flags=allow-oom
-- Completes a pending order: what it held is sold.
--
-- KEYS 1    {shop}:order:<id>      hash
--      2    {shop}:events          stream
--      3    {shop}:holds           zset, ids of pending orders, score = deadline in ms
--      4    {shop}:pending         zset, the same ids, score = id
--      5..  {shop}:product:<id>    hash, one a line of the order
-- ARGV 1    order id
--      2    entries to keep in the stream, about
--      3    now in ms since 1970; empty: the server's clock
--      4..  quantity, one a line of the order
--
-- Replies: completed    it is now, or was before
--          cancelled    it was cancelled, nothing was changed
--          expired      its deadline has passed, nothing was changed
--          absent       there is no such order
local id = ARGV[1]
assert(#KEYS - 4 == #ARGV - 3, 'a quantity for each product')

-- Decide. ZCARD is here to fail on a key of another type, before anything is written.
local order = redis.call('HMGET', KEYS[1], 'status', 'expires_at', 'products')
if not order[1] then return {'absent'} end
if order[1] ~= 'pending' then return {order[1]} end
local now = tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if now >= tonumber(order[2]) then return {'expired'} end
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[4])
local updates = {}
for i = 1, #ARGV - 3 do
  local quantity, found = tonumber(ARGV[3 + i]), redis.call('HMGET', KEYS[4 + i], 'held', 'sold')
  updates[i] = {tonumber(found[1]) - quantity, tonumber(found[2]) + quantity}
end

-- Write. XADD first: it is the only one that may still fail, on a key of another type.
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'event', 'order_completed', 'order', id, 'products', order[3])
redis.call('HSET', KEYS[1], 'status', 'completed')
redis.call('HDEL', KEYS[1], 'expires_at')
redis.call('ZREM', KEYS[3], id)
redis.call('ZREM', KEYS[4], id)
for i, update in ipairs(updates) do redis.call('HSET', KEYS[4 + i], 'held', update[1], 'sold', update[2]) end
return {'completed'}
