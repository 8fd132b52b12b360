#!lua
-- Forgets transfers that the other partition has taken in.
--
-- KEYS 1   {shop:p}:outgoing:<to>   zset, transfers that are not settled: "<id> <product id> <units>", score = id
-- ARGV 1   settled   id of a transfer: the other partition has taken this one and all before it
--
-- Replies: settled
local outgoing_key = unpack(KEYS, 1, 1)
local settled = unpack(ARGV, 1, 1)

-- Decide.
local old = redis.call('ZRANGEBYSCORE', outgoing_key, '-inf', settled)

-- Write.
if #old > 0 then redis.call('ZREM', outgoing_key, unpack(old)) end
return {'settled'}
