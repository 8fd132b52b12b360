#!lua flags=no-writes,allow-oom
-- Finds holds whose deadline has passed, the oldest first.
--
-- KEYS 1    {shop}:holds    zset, ids of pending orders, score = deadline in ms
-- ARGV 1    now_ms   ms since 1970; empty: use the clock of Redis
--      2    skip     number of overdue holds to leave out, from the oldest on
--      3    spread   number of batches to leave out besides, if there are more of them
--      4    limit    number of holds in a batch
--
-- Replies: due <now ms> <overdue> <skipped> <next deadline ms, or empty> <order id> <deadline ms>...
--              overdue: the number of all overdue holds; skipped: the number of those before the first in the reply;
--              next deadline: of the first hold that is not overdue; at the end, two texts per hold of the batch
local holds_key = unpack(KEYS, 1, 1)
local now_ms, skip, spread, limit = unpack(ARGV, 1, 4)
skip, spread, limit = tonumber(skip), tonumber(spread), tonumber(limit)
now_ms = tonumber(now_ms)
if not now_ms then
  local seconds, microseconds = unpack(redis.call('TIME'))
  now_ms = seconds * 1000 + math.floor(microseconds / 1000)
end
now_ms = string.format('%.0f', now_ms)
local overdue = redis.call('ZCOUNT', holds_key, '-inf', now_ms)
skip = skip + limit * math.max(0, math.min(spread, math.ceil((overdue - skip) / limit) - 1))
local following = redis.call('ZRANGEBYSCORE', holds_key, '(' .. now_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return {'due', now_ms, overdue, skip, following[2] or '',
  unpack(redis.call('ZRANGEBYSCORE', holds_key, '-inf', now_ms, 'WITHSCORES', 'LIMIT', skip, limit))}
