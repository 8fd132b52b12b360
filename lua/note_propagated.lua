#!lua
-- Notes that all partitions of the shop have a version of a product. So all have had the units with which it began.
--
-- KEYS 1  {shop:p}:product:<id>   hash
--      2  {shop:p}:unpropagated   zset, product id, score = catalogue version
-- ARGV 1  product_id   whole number
--      2  version      catalogue version that all partitions have
--
-- Replies: propagated
--          newer   there is a newer version, which some partitions do not have
local product_key, unpropagated_key = unpack(KEYS, 1, 2)
local product_id, version = unpack(ARGV, 1, 2)

-- Decide.
local newest = redis.call('ZSCORE', unpropagated_key, product_id)
local is_newer = newest and tonumber(newest) > tonumber(version)
local has_share = redis.call('HGET', product_key, 'share')

-- Write. The types of both Redis keys are known. ZREM comes last: it may leave nothing of its key.
if has_share then redis.call('HDEL', product_key, 'share') end
if is_newer then return {'newer'} end
redis.call('ZREM', unpropagated_key, product_id)
return {'propagated'}
