#!lua flags=no-writes
-- Reads the first members of indexes of orders.
--
-- KEYS 1..  {shop}:orders:customer:<customer> or {shop}:orders:reference:<reference>   zset, ids of orders, score = id
-- ARGV 1    limit   number of members to read of each
--
-- Replies: members <row>...   one row of members per key; if the key is not a zset, the row is the error message alone
local limit = unpack(ARGV, 1, 1)
local reply = {'members'}
for i = 1, #KEYS do
  local row = redis.pcall('ZRANGEBYSCORE', KEYS[i], '-inf', '+inf', 'LIMIT', 0, limit)
  reply[1 + i] = row.err and {row.err} or row
end
return reply
