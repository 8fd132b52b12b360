#!lua
-- Brings the catalogue part of a product, as its home partition has it, into another partition of the shop.
--
-- KEYS 1  {shop:p}:product:<id>   hash
--      2  {shop:p}:products       zset, ids of the products on sale, score = id
-- ARGV 1  product_id   whole number
--      2  version      catalogue version, which grows with each change
--      3  share        units with which a new product begins in this partition; empty: all partitions had it already
--      4  withdrawn    1: the product is not on sale any more; otherwise 0
--      5.. field, value: one pair per field of the catalogue part; an empty value removes the field
--
-- Replies: pushed
--          known    this partition has this version already, or a newer one; nothing was changed
--          lost     this partition had the product, and does not have it any more; nothing was changed
local product_key, products_key = unpack(KEYS, 1, 2)
local product_id, version, share, withdrawn = unpack(ARGV, 1, 4)
local fixed_args = 4
assert((#ARGV - fixed_args) % 2 == 0, 'each field needs a value')

-- Decide. ZCARD is called only because it fails on a key of another type, before anything is written.
redis.call('ZCARD', products_key)
local old_version, stock, received = unpack(redis.call('HMGET', product_key, 'version', 'stock', 'received'))
if old_version and tonumber(old_version) >= tonumber(version) then return {'known'} end
-- It may have sold the units with which the product began: they are not given a second time.
if not old_version and share == '' then return {'lost'} end
local set, removed = {}, {}
for i = fixed_args + 1, #ARGV, 2 do
  if ARGV[i + 1] == '' and ARGV[i] ~= 'description' then
    removed[#removed + 1] = ARGV[i]
  else
    set[#set + 1], set[#set + 2] = ARGV[i], ARGV[i + 1]
  end
end

-- Write. Nothing below can fail: the types of all Redis keys are known.
redis.call('HSET', product_key, 'id', product_id, 'version', version, 'withdrawn', withdrawn, unpack(set))
if #removed > 0 then redis.call('HDEL', product_key, unpack(removed)) end
if not old_version then
  -- Units that came before the product did are kept.
  stock, received = tonumber(stock or 0) + tonumber(share), tonumber(received or 0) + tonumber(share)
  redis.call('HSET', product_key, 'stock', string.format('%.0f', stock), 'held', '0', 'sold', '0',
    'received', string.format('%.0f', received))
end
if withdrawn == '1' then
  redis.call('ZREM', products_key, product_id)
else
  redis.call('ZADD', products_key, product_id, product_id)
end
return {'pushed'}
