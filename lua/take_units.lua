#!lua
-- Takes in units that another partition of the shop gave. Each transfer is taken in once, however often and late it
-- comes: those up to the last one that was taken are left out. So the list must begin with the oldest transfer that
-- the other partition has not settled.
--
-- KEYS 1   {shop:p}:taken          hash, partition = id of the last transfer that was taken in from it
--      2.. {shop:p}:product:<id>   hash, one per transfer
-- ARGV 1   source   number of the partition that gave the units
--      2.. id of the transfer, units: one pair per transfer, oldest first
--
-- Replies: taken <id> <units>   the id of the last transfer that was taken in from that partition, now or before;
--                               the units that were taken in now
local taken_key = unpack(KEYS, 1, 1)
local source = unpack(ARGV, 1, 1)
local fixed_keys, fixed_args = 1, 1
assert(#ARGV - fixed_args == 2 * (#KEYS - fixed_keys), 'each transfer needs a product')

-- Decide.
local last_id = redis.call('HGET', taken_key, source) or '0'
local products, is_new, new_units = {}, false, 0
for i = 1, #KEYS - fixed_keys do
  local id, units = unpack(ARGV, fixed_args + 2 * i - 1, fixed_args + 2 * i)
  if tonumber(id) > tonumber(last_id) then
    local product = products[KEYS[fixed_keys + i]]
    if not product then
      local stock, received, moved = unpack(redis.call('HMGET', KEYS[fixed_keys + i], 'stock', 'received', 'moved'))
      product = {is_unknown = not stock, stock = stock or 0, received = received or 0, moved = moved or 0}
      products[KEYS[fixed_keys + i]] = product
    end
    for _, name in ipairs({'stock', 'received', 'moved'}) do product[name] = product[name] + units end
    last_id, is_new, new_units = id, true, new_units + units
  end
end

-- Write. Nothing below can fail: the types of all Redis keys are known.
if is_new then redis.call('HSET', taken_key, source, last_id) end
for i = fixed_keys + 1, #KEYS do
  local product = products[KEYS[i]]
  if product then
    redis.call('HSET', KEYS[i], 'stock', string.format('%.0f', product.stock),
      'received', string.format('%.0f', product.received), 'moved', string.format('%.0f', product.moved))
    -- A product that was not pushed here yet, or that a failover took away, is not on sale: it has no price.
    if product.is_unknown then redis.call('HSET', KEYS[i], 'held', '0', 'sold', '0', 'withdrawn', '1') end
    products[KEYS[i]] = nil
  end
end
return {'taken', last_id, string.format('%.0f', new_units)}
