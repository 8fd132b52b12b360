#!lua
-- Withdraws a product from sale: no longer listed or orderable. The hash stays, for holds and past orders.
--
-- KEYS 1  {shop}:product:<id>   hash
--      2  {shop}:products       zset, ids on sale, score = id
--      3  {shop}:events         stream
-- ARGV 1  product id
--      2  entries to keep in the stream, about
--
-- Replies: withdrawn   it is not on sale now, and may not have been before
--          absent      there never was such a product
local id = ARGV[1]

-- Decide. ZCARD and XLEN are here to fail on a key of another type, before anything is written.
local withdrawn = redis.call('HGET', KEYS[1], 'withdrawn')
if not withdrawn then return {'absent'} end
if withdrawn == '1' then return {'withdrawn'} end
redis.call('ZCARD', KEYS[2])
redis.call('XLEN', KEYS[3])

-- Write.
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', 'event', 'product_withdrawn', 'product', id)
redis.call('ZREM', KEYS[2], id)
redis.call('HSET', KEYS[1], 'withdrawn', '1')
return {'withdrawn'}
