#!lua flags=no-writes
-- Reads products, and what the index says of them, as of one moment.
--
-- KEYS 1    {shop}:events          stream
--      2    {shop}:products        zset, ids on sale, score = id
--      3..  {shop}:product:<id>    hash
-- ARGV 1..  product id, one a hash
--
-- Replies: products <id of the last event, or 0-0> <row>...
--          a row: id, price, stock, held, sold, received, withdrawn, score in the index; each may be absent
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local reply = {'products', last[1] and last[1][1] or '0-0'}
for i, id in ipairs(ARGV) do
  local row = redis.call('HMGET', KEYS[2 + i], 'id', 'price', 'stock', 'held', 'sold', 'received', 'withdrawn')
  row[8] = redis.call('ZSCORE', KEYS[2], id)
  reply[2 + i] = row
end
return reply
