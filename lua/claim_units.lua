#!lua
-- Claims products in this partition for a short time: meanwhile, no partition with a higher number gets units of them
-- from here. An order that other orders have overtaken several times does so.
--
-- KEYS 1.. {shop:p}:product:<id>   hash
-- ARGV 1   partition   number of this partition
--      2   claim_ms    ms for which they are claimed
--
-- Replies: claimed
local partition, claim_ms = unpack(ARGV, 1, 2)
assert(#KEYS > 0, 'no product to claim')

-- Decide.
local seconds, microseconds = unpack(redis.call('TIME'))
local claim = string.format('%.0f %s', seconds * 1000 + math.floor(microseconds / 1000) + claim_ms, partition)
local is_known = {}
for i = 1, #KEYS do is_known[i] = redis.call('HGET', KEYS[i], 'stock') end

-- Write.
for i = 1, #KEYS do
  if is_known[i] then redis.call('HSET', KEYS[i], 'claim', claim) end
end
return {'claimed'}
