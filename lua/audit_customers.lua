#!lua flags=no-writes
-- Reads the counts of customers, all at one moment.
--
-- KEYS 1    {shop}:events                 stream
--      2..  {shop}:customer:<customer>    hash, product id = units that the customer has
--
-- Replies: customers <id of the last event, or 0-0> <row>...
--          One row per customer: product id, units, product id, units, ... If the key is not a hash, the row is the
--          error message alone.
local events_key = unpack(KEYS, 1, 1)
local fixed_keys = 1

local last_event = redis.call('XREVRANGE', events_key, '+', '-', 'COUNT', 1)[1]
local reply = {'customers', last_event and last_event[1] or '0-0'}
for i = 1, #KEYS - fixed_keys do
  local row = redis.pcall('HGETALL', KEYS[fixed_keys + i])
  reply[2 + i] = row.err and {row.err} or row
end
return reply
