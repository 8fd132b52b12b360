#!lua
-- Moves a counter of ids forwards or backwards, unless somebody has moved it meanwhile.
--
-- KEYS 1   {shop}:ids:products or {shop}:ids:orders   number
-- ARGV 1   expected   the value that the counter must still have, as text; empty: the counter must be absent
--      2   step       whole number to add
--
-- Replies: moved
--          changed   the counter has another value; nothing was changed
local counter_key = unpack(KEYS, 1, 1)
local expected, step = unpack(ARGV, 1, 2)
assert(step, 'no step')

-- Decide.
if (redis.call('GET', counter_key) or '') ~= expected then return {'changed'} end

-- Write. INCRBY fails if the counter is not a number. The step is not calculated here: Lua's numbers end at 2^53.
redis.call('INCRBY', counter_key, step)
return {'moved'}
