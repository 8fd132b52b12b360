#!lua flags=no-writes
-- Reads what a partition of a shop has given to the others and taken from them, and fields of products, all at one
-- moment.
--
-- KEYS 1   {shop:p}:sent            hash, partition = id of the last transfer to it
--      2   {shop:p}:taken           hash, partition = id of the last transfer that was taken in from it
--      3   {shop:p}:unpropagated    zset, product id, score = catalogue version
--      4.. {shop:p}:outgoing:<to>   zset, "<id> <product id> <units>", score = id; one per other partition
--      ..  {shop:p}:product:<id>    hash
-- ARGV 1   others        number of other partitions
--      2   field_count   number of fields to read
--      3.. fields to read; then product ids, one per hash
--
-- Replies: partition <sent> <taken> <transfers>... <row>...
--          Hashes as field, value, ...; one list of transfers and scores per other partition; one row per product: the
--          fields, and its score in `unpropagated`, each possibly nil. If the key is not a hash, the row is the error
--          message alone.
local sent_key, taken_key, unpropagated_key = unpack(KEYS, 1, 3)
local others, field_count = unpack(ARGV, 1, 2)
local fixed_keys, fixed_args = 3, 2
local keys_before_products, args_before_ids = fixed_keys + tonumber(others), fixed_args + tonumber(field_count)

local reply = {'partition', redis.call('HGETALL', sent_key), redis.call('HGETALL', taken_key)}
for i = fixed_keys + 1, keys_before_products do
  reply[#reply + 1] = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', '+inf', 'WITHSCORES')
end
for i = 1, #KEYS - keys_before_products do
  local row = redis.pcall('HMGET', KEYS[keys_before_products + i], unpack(ARGV, fixed_args + 1, args_before_ids))
  if row.err then
    row = {row.err}
  else
    row[#row + 1] = redis.call('ZSCORE', unpropagated_key, ARGV[args_before_ids + i])
  end
  reply[#reply + 1] = row
end
return reply
