#!lua
-- Moves the stock of a product on sale by a signed amount.
--
-- KEYS 1  {shop}:product:<id>         hash
--      2  {shop}:events               stream
--      3  {shop}:idempotency:<key>    hash, only where ARGV[5] is not empty
-- ARGV 1  product id
--      2  change, a signed whole number
--      3  reason, a text
--      4  most that may be in stock and held
--      5  Idempotency-Key, or empty
--      6  fingerprint of the request
--      7  ms for which the key remembers a refusal
--      8  entries to keep in the stream, about
--
-- Replies: moved <name> <description> <price> <stock>   the product as it is now
--          replayed <product id>                        the key moved this product's stock before
--          refused <text>                               the key was refused before: a reply below, a line a word
--          reused                                       the key came before with another fingerprint
--          absent                                       there is no such product on sale
--          short <stock>                                there is less than is to go
--          full <stock> <held>                          there would be more than ARGV[4]
local id, change, key = ARGV[1], tonumber(ARGV[2]), ARGV[5]

local function refuse(reply)
  if key ~= '' then
    redis.call('HSET', KEYS[3], 'fingerprint', ARGV[6], 'refusal', table.concat(reply, '\n'))
    redis.call('PEXPIRE', KEYS[3], ARGV[7])
  end
  return reply
end

-- Decide. XLEN is here to fail on a key of another type, before a refusal is written.
if key ~= '' then
  local known = redis.call('HMGET', KEYS[3], 'fingerprint', 'product', 'refusal')
  if known[1] and known[1] ~= ARGV[6] then return {'reused'} end
  if known[2] then return {'replayed', known[2]} end
  if known[3] then return {'refused', known[3]} end
end
redis.call('XLEN', KEYS[2])
local found = redis.call('HMGET', KEYS[1], 'stock', 'held', 'received', 'withdrawn', 'name', 'description', 'price')
if not found[1] or found[4] == '1' then return refuse({'absent'}) end
local stock, held, received = tonumber(found[1]), tonumber(found[2]), tonumber(found[3]) + change
if stock + change < 0 then return refuse({'short', found[1]}) end
if change > 0 and stock + held + change > tonumber(ARGV[4]) then return refuse({'full', found[1], found[2]}) end
stock = string.format('%.0f', stock + change)

-- Write.
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[8], '*',
  'event', 'stock_moved', 'product', id, 'change', ARGV[2], 'reason', ARGV[3], 'stock', stock)
if key ~= '' then redis.call('HSET', KEYS[3], 'fingerprint', ARGV[6], 'product', id) end
redis.call('HSET', KEYS[1], 'stock', stock, 'received', string.format('%.0f', received))
return {'moved', found[5], found[6], found[7], stock}
