#!lua
-- Claims products in this partition for a short time: meanwhile, no partition with a higher number gets units of them
-- from here. An order that other orders have overtaken several times does so.
--
-- KEYS 1.. {shop:p}:product:<id>   hash
-- ARGV 1   partition   number of this partition
--      2   ms          how long
--
-- Replies: claimed
local partition, ms = unpack(ARGV, 1, 2)

-- Decide.
local seconds, microseconds = unpack(redis.call('TIME'))
local claim = string.format('%.0f %s', seconds * 1000 + math.floor(microseconds / 1000) + ms, partition)
local product_keys = {}
for _, product_key in ipairs(KEYS) do
  if redis.call('HGET', product_key, 'stock') then product_keys[#product_keys + 1] = product_key end
end

-- Write.
for _, product_key in ipairs(product_keys) do redis.call('HSET', product_key, 'claim', claim) end
return {'claimed'}
