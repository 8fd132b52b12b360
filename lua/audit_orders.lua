#!lua flags=no-writes
-- Reads orders, and what the indexes say of them, as of one moment.
--
-- KEYS 1    {shop}:events         stream
--      2    {shop}:holds          zset, ids of pending orders, score = deadline in ms
--      3    {shop}:pending        zset, the same ids, score = id
--      4..  {shop}:order:<id>     hash
-- ARGV 1..  order id, one a hash
--
-- Replies: orders <id of the last event, or 0-0> <row>...
--          a row: id, status, total_price, products, expires_at, score in holds, score in pending, each or nil;
--          or the error alone, where the key is no hash
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local reply = {'orders', last and last[1] or '0-0'}
for i, id in ipairs(ARGV) do
  local row = redis.pcall('HMGET', KEYS[3 + i], 'id', 'status', 'total_price', 'products', 'expires_at')
  if row.err then
    row = {row.err}
  else
    row[6], row[7] = redis.call('ZSCORE', KEYS[2], id), redis.call('ZSCORE', KEYS[3], id)
  end
  reply[2 + i] = row
end
return reply
