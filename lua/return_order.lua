#!lua
-- Takes back units of a completed order: of all lines that the request names, or of none.
--
-- KEYS 1    {shop}:order:<id>           hash
--      2    {shop}:events               stream
--      3..  {shop}:product:<id>         hash, one per line, on sale or withdrawn
--      next {shop}:customer:<customer>  hash, product id = units that the customer has; only if there is a customer
--      last {shop}:refusals             number, only if idempotency_key is not empty; then, as the last
--      last {shop}:idempotency:<key>    hash, only if idempotency_key is not empty
-- ARGV 1    order_id          whole number
--      2    restock           1: the units are in stock again; 0: they are written off
--      3    reason            text, or empty
--      4    max_stock         maximum of the units of a product that are in stock and held together
--      5    idempotency_key   text, or empty
--      6    fingerprint       text, the same if a request is repeated
--      7    refusal_ms        ms for which the Idempotency-Key remembers a refusal; 0: it does not remember it
--      8    short_refusal_ms  the same, if refusals_max refusals are remembered already
--      9    refusals_max      number of refusals in refusal_ms that are remembered for so long
--      10   events_max        approximate number of entries to keep in the stream
--      11   by                name of the API key of the request, or empty
--      12   now_ms            ms since 1970; empty: use the clock of Redis
--      13.. for each line, by product id: product id, units to take back, units bought, price
--
-- Replies: returned <returned> <refunded>    what has come back of the order until now: its fields in the hash
--          replayed <order id>               an earlier request with this Idempotency-Key made this return
--          refused <text>                    an earlier request with this Idempotency-Key was refused; the text is
--                                            that reply, one item per row
--          reused                            an earlier request with this Idempotency-Key had another fingerprint
--          absent                            there is no such order
--          cancelled                         the order was cancelled before
--          expired                           the deadline of the order has passed
--          pending                           the order is pending
--          exceeds <units>...                more would come back than was bought and has not come back; for each line,
--                                            what can still come back; empty: this is enough
--          full <product id>...              stock and held units of these products would be more than max_stock
local order_key, events_key = unpack(KEYS, 1, 2)
local order_id, restock, reason, max_stock, idempotency_key, fingerprint, refusal_ms, short_refusal_ms, refusals_max, events_max, by, now_ms = unpack(ARGV, 1, 12)
local fixed_keys, fixed_args, args_per_line, refusals_key, outcome_key = 2, 12, 4, KEYS[#KEYS-1], KEYS[#KEYS]
local line_count = (#ARGV - fixed_args) / args_per_line
local customer_key = KEYS[fixed_keys+line_count+1]
assert(line_count >= 1 and line_count % 1 == 0, 'each line needs four arguments')

-- Return rows of `<product id>: <units>` with the units of `lines` added.
local function add_units(rows, lines)
  local ids, units = {}, {}
  for product_id, number in string.gmatch(rows, '(%d+): (%d+)') do ids[#ids + 1], units[product_id] = product_id, number end
  for _, line in ipairs(lines) do
    if not units[line.product_id] then ids[#ids + 1] = line.product_id end
    units[line.product_id] = string.format('%.0f', (units[line.product_id] or 0) + line.quantity)
  end
  for i, product_id in ipairs(ids) do ids[i] = product_id .. ': ' .. units[product_id] end
  return table.concat(ids, '\n')
end

-- Decide. XLEN is called only because it fails on a key of another type, before anything is written.
if idempotency_key ~= '' then
  local first_fingerprint, result_id, refusal_text = unpack(redis.call('HMGET', outcome_key, 'fingerprint', 'return', 'refusal'))
  if first_fingerprint and first_fingerprint ~= fingerprint then return {'reused'} end
  if result_id then return {'replayed', result_id} end
  if refusal_text then return {'refused', refusal_text} end
end
redis.call('XLEN', events_key)
local status, expires_at, returned, refunded, written_off, reference, customer, return_keys = unpack(
  redis.call('HMGET', order_key, 'status', 'expires_at', 'returned', 'refunded', 'written_off', 'reference', 'customer', 'return_keys'))
if not status then return {'absent'} end
if status == 'cancelled' then return {'cancelled'} end
if status == 'expired' then return {'expired'} end
assert(#KEYS == fixed_keys + line_count + (customer and 1 or 0) + (idempotency_key ~= '' and 2 or 0), 'wrong keys')
now_ms = tonumber(now_ms)
if not now_ms then
  local seconds, microseconds = unpack(redis.call('TIME'))
  now_ms = seconds * 1000 + math.floor(microseconds / 1000)
end
if status == 'pending' and now_ms >= tonumber(expires_at) then return {'expired'} end
local excess_refusal, lines, rows, refund, refusal, full_refusal = {'exceeds'}, {}, {}, 0, nil, nil
if status == 'pending' then refusal = {'pending'} end
for i = 1, line_count do
  local at = fixed_args + args_per_line * (i - 1)
  local line = {product_id = ARGV[at + 1], quantity = tonumber(ARGV[at + 2])}
  local before = string.match('\n' .. (returned or ''), '\n' .. line.product_id .. ': (%d+)') or 0
  local returnable = tonumber(ARGV[at + 3]) - before
  excess_refusal[i + 1] = line.quantity > returnable and string.format('%.0f', returnable) or ''
  if excess_refusal[i + 1] ~= '' then refusal = refusal or excess_refusal end
  if not refusal then
    local stock, held, sold, received, lost = unpack(
      redis.call('HMGET', KEYS[fixed_keys + i], 'stock', 'held', 'sold', 'received', 'written_off'))
    if restock == '1' then
      if stock + held + line.quantity > tonumber(max_stock) then
        full_refusal = full_refusal or {'full'}
        full_refusal[#full_refusal + 1] = line.product_id
      end
      line.changes = {'stock', string.format('%.0f', stock + line.quantity)}
    else
      line.changes = {'received', string.format('%.0f', received - line.quantity),
        'written_off', string.format('%.0f', (lost or 0) + line.quantity)}
    end
    line.sold = string.format('%.0f', sold - line.quantity)
    -- A damaged count of a customer must not prevent a return: the audit reports it.
    if customer then line.units = (tonumber(redis.call('HGET', customer_key, line.product_id)) or 0) - line.quantity end
    rows[i] = string.format('%s: %.0f x %s', line.product_id, line.quantity, ARGV[at + 4])
    -- Exact: a price has at most 11 digits, so the error of the double is far below half a cent.
    refund, lines[i] = refund + math.floor(tonumber(ARGV[at + 4]) * 100 + 0.5) * line.quantity, line
  end
end
refusal = refusal or full_refusal
local remembers = refusal and idempotency_key ~= '' and refusal_ms ~= '0'
local remembered, refusals = refusal, 0
if remembers then
  refusals = tonumber(redis.call('GET', refusals_key) or 0)
  assert(refusals and refusals % 1 == 0, 'the number of remembered refusals is not a number')
end
local event = {}
if not refusal then
  local units, cents = string.match(refunded or '0.00', '^(%d+)%.(%d%d)$')
  cents = units * 100 + cents + refund
  refunded = string.format('%.0f.%02.0f', math.floor(cents / 100), cents % 100)
  returned = add_units(returned or '', lines)
  if restock ~= '1' then written_off = add_units(written_off or '', lines) end
  event = {'event', 'order_returned', 'order', order_id, 'products', table.concat(rows, '\n'), 'restock', restock,
    'refund', string.format('%.0f.%02.0f', math.floor(refund / 100), refund % 100), 'returned', returned}
  local further = {written_off = written_off, reason = reason ~= '' and reason, reference = reference, customer = customer,
    by = by ~= '' and by}
  for _, name in ipairs({'written_off', 'reason', 'reference', 'customer', 'by'}) do
    if further[name] then event[#event + 1], event[#event + 2] = name, further[name] end
  end
end

-- Write. Nothing below can fail: the types of all Redis keys are known.
if refusal then
  if remembers then
    redis.call('INCRBY', refusals_key, 1)
    if refusals == 0 then redis.call('PEXPIRE', refusals_key, refusal_ms) end
    redis.call('HSET', outcome_key, 'fingerprint', fingerprint, 'refusal', table.concat(remembered, '\n'))
    redis.call('PEXPIRE', outcome_key, refusals < tonumber(refusals_max) and refusal_ms or short_refusal_ms)
  end
  return refusal
end
redis.call('XADD', events_key, 'MAXLEN', '~', events_max, '*', unpack(event))
redis.call('HSET', order_key, 'returned', returned, 'refunded', refunded, 'returned_at', string.format('%.0f', now_ms))
if restock ~= '1' then redis.call('HSET', order_key, 'written_off', written_off) end
if idempotency_key ~= '' then
  redis.call('HSET', outcome_key, 'fingerprint', fingerprint, 'return', order_id)
  redis.call('HSET', order_key, 'return_keys',
    (return_keys and return_keys .. '\n' or '') .. idempotency_key .. (by ~= '' and ' ' .. by or ''))
end
for i, line in ipairs(lines) do
  if customer and line.units > 0 then redis.call('HSET', customer_key, line.product_id, string.format('%.0f', line.units))
  elseif customer then redis.call('HDEL', customer_key, line.product_id) end
  redis.call('HSET', KEYS[fixed_keys + i], 'sold', line.sold, unpack(line.changes))
end
return {'returned', returned, refunded}
