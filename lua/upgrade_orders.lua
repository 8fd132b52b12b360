#!lua
-- Upgrades orders from schema version 1 to 2: writes the moments that earlier versions stored only in the events.
--
-- KEYS 1    {shop}:meta         hash
--      2..  {shop}:order:<id>   hash, one per moment; an order may come twice
-- ARGV 1    position   id of the last event that was looked at, from which a stopped upgrade continues
--      2..  field, ms since 1970: one pair per moment. completed_at is the moment of a completion, returned_at of a return
--
-- Replies: upgraded <number of moments written>
local meta_key = unpack(KEYS, 1, 1)
local position = unpack(ARGV, 1, 1)
local fixed_keys, fixed_args = 1, 1
assert(2 * (#KEYS - fixed_keys) == #ARGV - fixed_args, 'each moment needs an order')

-- Decide. A key that is not a hash stays as it is: the audit reports it.
redis.call('HGET', meta_key, 'upgrade')
local writes = {}
for i = 1, #KEYS - fixed_keys do
  local field, moment = ARGV[fixed_args + 2 * i - 1], ARGV[fixed_args + 2 * i]
  local found = redis.pcall('HMGET', KEYS[fixed_keys + i], 'status', 'returned', field)
  if not found.err and found[1] == 'completed' and not (field == 'returned_at' and not found[2]) then
    local known = tonumber(found[3])
    if not known or field == 'returned_at' and known < tonumber(moment) then
      writes[#writes + 1] = {at = fixed_keys + i, field = field, moment = moment}
    end
  end
end

-- Write. Nothing below can fail: the types of all Redis keys are known.
for _, write in ipairs(writes) do redis.call('HSET', KEYS[write.at], write.field, write.moment) end
redis.call('HSET', meta_key, 'upgrade', position)
return {'upgraded', tostring(#writes)}
