#!lua
-- Changes the name, description or price of a product on sale. Orders keep the price they were placed at.
--
-- KEYS 1   {shop}:product:<id>   hash
--      2   {shop}:events         stream
-- ARGV 1   product id
--      2   entries to keep in the stream, about
--      3.. field, new value: a pair a field; may be none
--
-- Replies: changed <name> <description> <price> <stock>   the product as it is now
--          absent                                         there is no such product on sale
local id = ARGV[1]

-- Decide. XLEN is here to fail on a key of another type, before anything is written.
local found = redis.call('HMGET', KEYS[1], 'name', 'description', 'price', 'stock', 'withdrawn')
if not found[1] or found[5] == '1' then return {'absent'} end
redis.call('XLEN', KEYS[2])
local position, changes = {name = 1, description = 2, price = 3}, {}
for i = 3, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  local at = assert(position[field], 'field cannot be changed')
  if found[at] ~= value then
    changes[#changes + 1], changes[#changes + 2] = field, value
    found[at] = value
  end
end

-- Write.
if #changes > 0 then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'event', 'product_changed', 'product', id, unpack(changes))
  redis.call('HSET', KEYS[1], unpack(changes))
end
return {'changed', found[1], found[2], found[3], found[4]}
