#!lua
-- Takes in units that another partition of the shop gave. Each transfer is taken in once, however often and late it
-- comes: those up to the last one that was taken are left out. So the list must begin with the oldest transfer that
-- the other partition has not settled.
--
-- KEYS 1   {shop:p}:taken          hash, partition = id of the last transfer that was taken in from it
--      2.. {shop:p}:product:<id>   hash, one per transfer
-- ARGV 1   from   number of the partition that gave the units
--      2.. id of the transfer, units: one pair per transfer, oldest first
--
-- Replies: taken <id>   of the last transfer that was taken in from that partition, now or before
local taken_key = unpack(KEYS, 1, 1)
local from = unpack(ARGV, 1, 1)
local fixed_keys, fixed_args = 1, 1
assert(#ARGV - fixed_args == 2 * (#KEYS - fixed_keys), 'each transfer needs a product')

-- Decide.
local last_id = redis.call('HGET', taken_key, from) or '0'
local products, changes, is_new = {}, {}, false
for i = 1, #KEYS - fixed_keys do
  local id, units = unpack(ARGV, fixed_args + 2 * i - 1, fixed_args + 2 * i)
  if tonumber(id) > tonumber(last_id) then
    local product_key = KEYS[fixed_keys + i]
    local numbers = products[product_key]
    if not numbers then
      local stock, received, moved = unpack(redis.call('HMGET', product_key, 'stock', 'received', 'moved'))
      numbers = {stock = tonumber(stock or 0), received = tonumber(received or 0), moved = tonumber(moved or 0)}
      products[product_key], changes[#changes + 1] = numbers, product_key
    end
    for name, number in pairs(numbers) do numbers[name] = number + tonumber(units) end
    last_id, is_new = id, true
  end
end

-- Write. Nothing below can fail: the types of all Redis keys are known.
if is_new then redis.call('HSET', taken_key, from, last_id) end
for _, product_key in ipairs(changes) do
  local numbers = products[product_key]
  redis.call('HSET', product_key, 'stock', string.format('%.0f', numbers.stock),
    'received', string.format('%.0f', numbers.received), 'moved', string.format('%.0f', numbers.moved))
end
return {'taken', last_id}
