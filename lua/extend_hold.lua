#!lua
-- Sets the end of the hold of a pending order to a moment from now on.
--
-- KEYS 1   {shop}:order:<id>   hash
--      2   {shop}:events       stream
--      3   {shop}:holds        zset, ids of pending orders, score = deadline in ms
-- ARGV 1   order_id      whole number
--      2   hold_ms       ms from now to the new deadline
--      3   max_hold_ms   ms from the creation of the order to the last deadline that is possible
--      4   events_max    approximate number of entries to keep in the stream
--      5   by            name of the API key of the request, or empty
--      6   now_ms        ms since 1970; empty: use the clock of Redis
--
-- Replies: extended <expires_at ms>    the order has this deadline now
--          completed                   the order was completed before; nothing was changed
--          cancelled                   the order was cancelled before; nothing was changed
--          expired                     the deadline of the order has passed; nothing was changed
--          absent                      there is no such order
local order_key, events_key, holds_key = unpack(KEYS, 1, 3)
local order_id, hold_ms, max_hold_ms, events_max, by, now_ms = unpack(ARGV, 1, 6)
assert(now_ms, 'an argument is missing')

-- Decide. ZCARD is called only because it fails on a key of another type, before anything is written.
local status, created_at, expires_at, reference, customer = unpack(
  redis.call('HMGET', order_key, 'status', 'created_at', 'expires_at', 'reference', 'customer'))
if not status then return {'absent'} end
if status ~= 'pending' then return {status} end
now_ms = tonumber(now_ms)
if not now_ms then
  local seconds, microseconds = unpack(redis.call('TIME'))
  now_ms = seconds * 1000 + math.floor(microseconds / 1000)
end
if now_ms >= tonumber(expires_at) then return {'expired'} end
redis.call('ZCARD', holds_key)
expires_at = string.format('%.0f', math.min(now_ms + tonumber(hold_ms), tonumber(created_at) + tonumber(max_hold_ms)))
local names = {}
if reference then names = {'reference', reference} end
if customer then names[#names + 1], names[#names + 2] = 'customer', customer end
if by ~= '' then names[#names + 1], names[#names + 2] = 'by', by end

-- Write. XADD comes first: it is the only command here that can still fail, on a key of another type.
redis.call('XADD', events_key, 'MAXLEN', '~', events_max, '*',
  'event', 'order_extended', 'order', order_id, 'expires_at', expires_at, unpack(names))
redis.call('HSET', order_key, 'expires_at', expires_at)
redis.call('ZADD', holds_key, expires_at, order_id)
return {'extended', expires_at}
