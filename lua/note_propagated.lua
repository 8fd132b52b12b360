#!lua
-- Notes that all partitions of the shop have a version of a product.
--
-- KEYS 1  {shop:p}:unpropagated   zset, product id, score = catalogue version
-- ARGV 1  product_id   whole number
--      2  version      catalogue version that all partitions have
--
-- Replies: propagated
--          newer   there is a newer version, which some partitions do not have; nothing was changed
local unpropagated_key = unpack(KEYS, 1, 1)
local product_id, version = unpack(ARGV, 1, 2)

-- Decide.
local newest = redis.call('ZSCORE', unpropagated_key, product_id)
if newest and tonumber(newest) > tonumber(version) then return {'newer'} end

-- Write.
redis.call('ZREM', unpropagated_key, product_id)
return {'propagated'}
