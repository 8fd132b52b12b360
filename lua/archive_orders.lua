#!lua flags=allow-oom
-- Removes orders that ended long ago, and that are in a file already. The units that they sold stay in the counts of
-- their products: `archived` says how many of `sold` were sold by orders that are not in Redis any more.
-- If one order or one product is damaged, the script fails, and no order is removed.
-- allow-oom: a full memory must not prevent what makes it emptier.
--
-- KEYS 1    {shop}:events          stream
--      2    {shop}:archived        zset, first id of each range of archived orders, score = its last id
--      3..  {shop}:product:<id>    hash, each product of the orders once, on sale or withdrawn;
--                                  then for each customer of the orders, once: {shop}:customer:<customer>, hash, and
--                                  {shop}:orders:customer:<customer>, zset, ids of orders, score = id;
--                                  then {shop}:orders:reference:<reference>, zset, ids of orders, score = id, each once;
--                                  then {shop}:order:<id>, hash, one per order;
--                                  then {shop}:idempotency:<key>, hash, the keys of the first order, then those of the second, and so on
-- ARGV 1    events_max        approximate number of entries to keep in the stream
--      2    keep_ms           an order stays until its last change is this many ms ago
--      3    now_ms            ms since 1970; empty: use the clock of Redis
--      4    first_customer    position of the first customer in KEYS
--      5    first_reference   position of the first reference in KEYS
--      6    first_order       position of the first order in KEYS
--      7    id_step           distance between the ids of two orders: the number of partitions of the shop
--      8..  for each order, by order id: order id, position of its customer in KEYS or 0, position of its reference in
--           KEYS or 0, number of its Idempotency-Keys, number of its fields, number of its lines; field and value of
--           each field, as they are in the file; for each line: position of its product in KEYS, product id, units that
--           are sold, units that were written off
--
-- Replies: removed <word>...    one word per order. removed: now archived; absent: there is no such order; changed: the
--                               order is not the one that is in the file; early: it has not ended, or not long enough ago
local events_key, archived_key = unpack(KEYS, 1, 2)
local events_max, keep_ms, now_ms, first_customer, first_reference, first_order, id_step = unpack(ARGV, 1, 7)
local fixed_keys, fixed_args, args_per_order, args_per_line = 2, 7, 6, 4
first_customer, first_reference, first_order = tonumber(first_customer), tonumber(first_reference), tonumber(first_order)
local ended = {completed = true, cancelled = true, expired = true}

-- Return a hash as a table.
local function as_table(pairs_of_hash)
  local fields, count = {}, #pairs_of_hash / 2
  for i = 1, #pairs_of_hash, 2 do fields[pairs_of_hash[i]] = pairs_of_hash[i + 1] end
  return fields, count
end

-- Decide. XLEN and ZCARD are called only because they fail on a key of another type, before anything is written.
redis.call('XLEN', events_key)
redis.call('ZCARD', archived_key)
for position = first_customer + 1, first_reference - 1, 2 do redis.call('ZCARD', KEYS[position]) end
for position = first_reference, first_order - 1 do redis.call('ZCARD', KEYS[position]) end
now_ms = tonumber(now_ms)
if not now_ms then
  local seconds, microseconds = unpack(redis.call('TIME'))
  now_ms = seconds * 1000 + math.floor(microseconds / 1000)
end
local products = {}
for position = fixed_keys + 1, first_customer - 1 do
  local sold, archived, lost, withdrawn, rules = unpack(
    redis.call('HMGET', KEYS[position], 'sold', 'archived', 'archived_written_off', 'withdrawn', 'sale_rules'))
  assert(tonumber(sold), 'a product is absent or damaged')
  -- The rule about a withdrawn product is of no use any more, because it can never be sold again.
  local limited = withdrawn ~= '1' and rules and string.find(rules, 'limit_per_customer:', 1, true)
  products[position] = {archived = tonumber(archived or 0), lost = tonumber(lost or 0), limited = limited}
end
local words, removed, counts, rows = {}, {}, {}, {}
local next_arg, order_position, last_id = fixed_args + 1, first_order, 0
-- Where the orders end in KEYS, the Idempotency-Keys begin: count the orders first.
local order_count, at = 0, next_arg
while at <= #ARGV do
  order_count = order_count + 1
  at = at + args_per_order + 2 * tonumber(ARGV[at + 4]) + args_per_line * tonumber(ARGV[at + 5])
end
assert(order_count > 0 and at == #ARGV + 1, 'the arguments do not fit the orders')
local key_position = first_order + order_count
while next_arg <= #ARGV do
  local order_id, customer, reference, key_count, field_count, line_count = unpack(ARGV, next_arg, next_arg + args_per_order - 1)
  customer, reference, field_count = tonumber(customer), tonumber(reference), tonumber(field_count)
  local first_field = next_arg + args_per_order
  local first_line = first_field + 2 * field_count
  next_arg = first_line + args_per_line * line_count
  assert(tonumber(order_id) > last_id, 'the orders are not sorted')
  last_id = tonumber(order_id)
  local fields, count = as_table(redis.call('HGETALL', KEYS[order_position]))
  local names, word = {}, count == field_count and 'removed' or count == 0 and 'absent' or 'changed'
  for i = first_field, first_line - 1, 2 do
    names[#names + 1] = ARGV[i]
    if word == 'removed' and fields[ARGV[i]] ~= ARGV[i + 1] then word = 'changed' end
  end
  if word == 'removed' then
    assert((customer > 0) == (fields.customer ~= nil), 'the customer does not fit the order')
    assert((reference > 0) == (fields.reference ~= nil), 'the reference does not fit the order')
    local moment = tonumber(fields.created_at)
    for _, name in ipairs({'completed_at', 'expires_at', 'returned_at'}) do
      if fields[name] then moment = math.max(moment, tonumber(fields[name])) end
    end
    if not ended[fields.status] or now_ms - moment < tonumber(keep_ms) then word = 'early' end
  end
  local known = {}
  for position = key_position, key_position + key_count - 1 do
    local outcome, key_names = redis.call('HGETALL', KEYS[position]), {}
    local result = as_table(outcome)
    if result.order == order_id or result['return'] == order_id then
      for i = 1, #outcome, 2 do key_names[#key_names + 1] = outcome[i] end
      known[#known + 1] = {position = position, names = key_names}
    end
  end
  if word == 'removed' then
    local row = order_id
    for i = first_line, next_arg - 1, args_per_line do
      local product, product_id, units, lost = tonumber(ARGV[i]), ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
      row = string.format('%s %s:%.0f', row, product_id, units)
      local numbers = assert(products[product], 'a line has no product')
      numbers.archived, numbers.lost = numbers.archived + units, numbers.lost + lost
      numbers.changed = numbers.changed or units > 0 or lost > 0
      if customer > 0 then
        local name = customer .. ':' .. product_id
        local units_of = counts[name] or {customer = customer, product_id = product_id, limited = numbers.limited, units = 0}
        counts[name], units_of.units = units_of, units_of.units + units
      end
    end
    rows[#rows + 1] = row
    removed[#removed + 1] = {
      id = order_id, position = order_position, names = names, customer = customer, reference = reference, keys = known}
  end
  words[#words + 1] = word
  order_position, key_position = order_position + 1, key_position + key_count
end
assert(key_position == #KEYS + 1, 'the keys do not fit the orders')
for _, units_of in pairs(counts) do
  -- A damaged count of a customer must not keep an order in Redis: the audit reports it.
  local name = units_of.limited and 'archived:' .. units_of.product_id or units_of.product_id
  local now = tonumber(redis.call('HGET', KEYS[units_of.customer], name)) or 0
  units_of.name, units_of.after = name, units_of.limited and now + units_of.units or now - units_of.units
end

-- Write. XADD comes first: it is the only command here that can still fail, on a stream that has no id left.
if #removed == 0 then return {'removed', unpack(words)} end
redis.call('XADD', events_key, 'MAXLEN', '~', events_max, '*', 'event', 'orders_archived', 'orders', table.concat(rows, '\n'))
for _, order in ipairs(removed) do
  -- HDEL of all fields, not DEL: a user of Redis needs no other right than before.
  redis.call('HDEL', KEYS[order.position], unpack(order.names))
  if order.customer > 0 then redis.call('ZREM', KEYS[order.customer + 1], order.id) end
  if order.reference > 0 then redis.call('ZREM', KEYS[order.reference], order.id) end
  for _, key in ipairs(order.keys) do redis.call('HDEL', KEYS[key.position], unpack(key.names)) end
end
for _, units_of in pairs(counts) do
  if units_of.after > 0 then redis.call('HSET', KEYS[units_of.customer], units_of.name, string.format('%.0f', units_of.after))
  else redis.call('HDEL', KEYS[units_of.customer], units_of.name) end
end
for position, numbers in pairs(products) do
  if numbers.changed then redis.call('HSET', KEYS[position], 'archived', string.format('%.0f', numbers.archived)) end
  if numbers.changed and numbers.lost > 0 then
    redis.call('HSET', KEYS[position], 'archived_written_off', string.format('%.0f', numbers.lost))
  end
end
-- Join the ids with the ranges beside them: nearly all ids up to the last archived one are then one range.
local i = 1
while i <= #removed do
  local first, last = tonumber(removed[i].id), tonumber(removed[i].id)
  while removed[i + 1] and tonumber(removed[i + 1].id) == last + id_step do i, last = i + 1, last + id_step end
  i = i + 1
  local joined = {}
  for _, beside in ipairs({first - id_step, last + id_step}) do
    local text = string.format('%.0f', beside)
    local range = redis.call('ZRANGEBYSCORE', archived_key, text, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if range[1] and tonumber(range[1]) <= beside then
      joined[#joined + 1] = range[1]
      first, last = math.min(first, tonumber(range[1])), math.max(last, tonumber(range[2]))
    end
  end
  -- ZADD comes before ZREM: while a slot moves key by key, a key that is empty for a moment belongs to the other node.
  local range = string.format('%.0f', first)
  redis.call('ZADD', archived_key, string.format('%.0f', last), range)
  for _, old in ipairs(joined) do if old ~= range then redis.call('ZREM', archived_key, old) end end
end
return {'removed', unpack(words)}
