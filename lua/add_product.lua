#!lua
-- Adds a product, unless its id was ever given to one.
--
-- KEYS 1  {shop}:product:<id>   hash, the product to write
--      2  {shop}:products       zset, ids on sale, score = id
--      3  {shop}:events         stream
-- ARGV 1  product id
--      2  name
--      3  description
--      4  price, as 19.99
--      5  stock, a whole number
--      6  entries to keep in the stream, about
--
-- Replies: added
--          taken   the id belongs to a product, on sale or withdrawn; nothing was changed
local id, name, description, price, stock = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

-- Decide. ZCARD and XLEN are here to fail on a key of another type, before anything is written.
if redis.call('EXISTS', KEYS[1]) == 1 then return {'taken'} end
redis.call('ZCARD', KEYS[2])
redis.call('XLEN', KEYS[3])

-- Write.
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*',
  'event', 'product_added', 'product', id, 'name', name, 'price', price, 'stock', stock)
redis.call('ZADD', KEYS[2], id, id)
redis.call('HSET', KEYS[1], 'id', id, 'name', name, 'description', description, 'price', price,
  'stock', stock, 'held', '0', 'sold', '0', 'received', stock, 'withdrawn', '0')
return {'added'}
