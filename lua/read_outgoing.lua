#!lua flags=no-writes
-- Reads what other partitions of the shop do not have yet: transfers of units, and changes of the catalogue.
--
-- KEYS 1   {shop:p}:unpropagated    zset, product id, score = catalogue version
--      2.. {shop:p}:outgoing:<to>   zset, transfers that are not settled: "<id> <product id> <units>", score = id
-- ARGV 1   max_pushes   number of products to return at most
--
-- Replies: outgoing <product ids> <transfers>...   lists; one list of transfers per key, oldest first
local unpropagated_key = unpack(KEYS, 1, 1)
local max_pushes = unpack(ARGV, 1, 1)
local fixed_keys = 1
local reply = {'outgoing', redis.call('ZRANGEBYSCORE', unpropagated_key, '-inf', '+inf', 'LIMIT', 0, max_pushes)}
for i = fixed_keys + 1, #KEYS do
  reply[i + 1] = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', '+inf')
end
return reply
