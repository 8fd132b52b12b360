#!lua flags=no-writes
-- Reads what other partitions of the shop do not have yet: transfers of units, and changes of the catalogue. Also reads
-- the ids of the last transfers that this partition has given and taken in.
--
-- KEYS 1   {shop:p}:unpropagated    zset, product id, score = catalogue version
--      2   {shop:p}:sent            hash, partition = id of the last transfer to it
--      3   {shop:p}:taken           hash, partition = id of the last transfer that was taken in from it
--      4.. {shop:p}:outgoing:<to>   zset, transfers that are not settled: "<id> <product id> <units>", score = id
-- ARGV 1   max_pushes   number of products to return at most
--
-- Replies: outgoing <product ids> <sent> <taken> <transfers>...
--          Lists. Hashes as field, value, ...; one list of transfers per key, oldest first
local unpropagated_key, sent_key, taken_key = unpack(KEYS, 1, 3)
local max_pushes = unpack(ARGV, 1, 1)
local fixed_keys = 3
local product_ids = redis.call('ZRANGEBYSCORE', unpropagated_key, '-inf', '+inf', 'LIMIT', 0, max_pushes)
local reply = {'outgoing', product_ids, redis.call('HGETALL', sent_key), redis.call('HGETALL', taken_key)}
for i = fixed_keys + 1, #KEYS do
  reply[#reply + 1] = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', '+inf')
end
return reply
