#!lua
-- Gives units of products away to another partition of the shop. From here on they are on their way: in `outgoing`.
-- Each product that is given is a transfer with an id of its own. A run whose reply is lost does no harm: the next reply
-- lists its transfers, too.
--
-- KEYS 1   {shop:p}:sent            hash, partition = id of the last transfer to it
--      2   {shop:p}:outgoing:<to>   zset, transfers that are not settled: "<id> <product id> <units>", score = id
--      3.. {shop:p}:product:<id>    hash, one per line, each product once
-- ARGV 1   to                 number of the partition that gets the units
--      2   settled            id of a transfer: that partition has taken this one and all before it
--      3   max_on_their_way   number of transfers on their way to it, from which on nothing more is given
--      4.. product id, need, wish, keep: four numbers per line. Gives the needed units, or all if there are
--          fewer. `wish`: the total to give, as long as `keep` units stay; -P: the P-th part of the stock
--
-- Replies: outgoing <transfer>...   all transfers on their way to that partition, oldest first
local sent_key, outgoing_key = unpack(KEYS, 1, 2)
local to, settled, max_on_their_way = unpack(ARGV, 1, 3)
local fixed_keys, fixed_args = 2, 3
assert(#ARGV - fixed_args == 4 * (#KEYS - fixed_keys), 'each line needs four numbers')

-- Decide. An id is never given out twice, not even if a failover set `sent` back: it is not below the time in us.
local old = redis.call('ZRANGEBYSCORE', outgoing_key, '-inf', settled)
local reply = {'outgoing', unpack(redis.call('ZRANGEBYSCORE', outgoing_key, '(' .. settled, '+inf'))}
local waiting = #reply - 1
local seconds, microseconds = unpack(redis.call('TIME'))
local now_ms = seconds * 1000 + math.floor(microseconds / 1000)
local id = math.max(
  tonumber(redis.call('HGET', sent_key, to) or 0) + 1, tonumber(settled) + 1, seconds * 1000000 + microseconds)
local last_id, transfers, changes = nil, {}, {}
if waiting < tonumber(max_on_their_way) then
  for i = 1, #KEYS - fixed_keys do
    local product_id, need, wish, keep = unpack(ARGV, fixed_args + 4 * i - 3, fixed_args + 4 * i)
    local stock, received, moved, claim = unpack(
      redis.call('HMGET', KEYS[fixed_keys + i], 'stock', 'received', 'moved', 'claim'))
    stock, wish = tonumber(stock or 0), tonumber(wish)
    if wish < 0 then wish = math.floor(stock / -wish) end
    local units = math.min(stock, math.max(tonumber(need), math.min(wish, stock - tonumber(keep))))
    local claimed_until, claimed_by = string.match(claim or '', '^(%d+) (%d+)$')
    -- Two orders would otherwise take each other's units for ever. The partition with the lower number goes first.
    local is_claimed = claimed_until and tonumber(claimed_until) > now_ms and tonumber(claimed_by) < tonumber(to)
    if units > 0 and not is_claimed then
      last_id = string.format('%.0f', id)
      reply[#reply + 1] = string.format('%s %s %.0f', last_id, product_id, units)
      transfers[#transfers + 1], transfers[#transfers + 2] = last_id, reply[#reply]
      changes[i] = {string.format('%.0f', stock - units), string.format('%.0f', tonumber(received) - units),
        string.format('%.0f', tonumber(moved or 0) - units)}
      id = id + 1
    end
  end
end

-- Write. Nothing below can fail: the types of all Redis keys are known. ZREM comes last: it may leave nothing of its key,
-- and while a slot moves key by key, a key that does not exist belongs to the other node, for the same script, too.
if last_id then
  redis.call('HSET', sent_key, to, last_id)
  redis.call('ZADD', outgoing_key, unpack(transfers))
end
for i, change in pairs(changes) do
  redis.call('HSET', KEYS[fixed_keys + i], 'stock', change[1], 'received', change[2], 'moved', change[3])
end
if #old > 0 then redis.call('ZREM', outgoing_key, unpack(old)) end
return reply
