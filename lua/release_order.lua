#!lua flags=allow-oom
-- Ends a pending order and gives its stock back: cancelled before its deadline, expired after it.
--
-- KEYS 1    {shop}:order:<id>      hash
--      2    {shop}:events          stream
--      3    {shop}:holds           zset, ids of pending orders, score = deadline in ms
--      4    {shop}:pending         zset, the same ids, score = id
--      5..  {shop}:product:<id>    hash, one a line of the order, on sale or withdrawn
-- ARGV 1    order id
--      2    what is asked for: cancel, or expire (which leaves an order that is not overdue alone)
--      3    entries to keep in the stream, about
--      4    now in ms since 1970; empty: the server's clock
--      5..  quantity, one a line of the order
--
-- Replies: released <cancelled or expired>    now
--          completed                          it was completed, nothing was changed
--          cancelled                          it was cancelled before, nothing was changed
--          expired                            it was expired before, nothing was changed
--          early                              to expire: its deadline has not passed, nothing was changed
--          absent                             there is no such order
local id = ARGV[1]
assert(#KEYS - 4 == #ARGV - 4, 'a quantity for each product')

-- Decide. ZCARD is here to fail on a key of another type, before anything is written.
local order = redis.call('HMGET', KEYS[1], 'status', 'expires_at', 'products')
if not order[1] then return {'absent'} end
if order[1] ~= 'pending' then return {order[1]} end
local now = tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local overdue = now >= tonumber(order[2])
if ARGV[2] == 'expire' and not overdue then return {'early'} end
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[4])
local status, updates = overdue and 'expired' or 'cancelled', {}
for i = 1, #ARGV - 4 do
  local quantity, found = tonumber(ARGV[4 + i]), redis.call('HMGET', KEYS[4 + i], 'stock', 'held')
  updates[i] = {tonumber(found[1]) + quantity, tonumber(found[2]) - quantity}
end

-- Write. XADD first: it is the only one that may still fail, on a key of another type.
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'event', 'order_' .. status, 'order', id, 'products', order[3])
redis.call('HSET', KEYS[1], 'status', status)
redis.call('ZREM', KEYS[3], id)
redis.call('ZREM', KEYS[4], id)
for i, update in ipairs(updates) do redis.call('HSET', KEYS[4 + i], 'stock', update[1], 'held', update[2]) end
return {'released', status}
