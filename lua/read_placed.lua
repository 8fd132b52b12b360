#!lua flags=no-writes
-- Reads the completed order that an Idempotency-Key has placed, in one round trip, for a worker that knows its id.
--
-- KEYS 1   {shop}:idempotency:<key>   hash, fingerprint and order
--      2   {shop}:order:<id>          hash, the order that this key is expected to have placed
-- ARGV 1   fingerprint   of the repeated request
--      2   order_id      of the expected order
--
-- Replies: order <row>   the values that service/storage/records.py reads of an order, each possibly nil
--          other         the key is not in Redis, or belongs to another request or order; or the order is not in Redis,
--                        or is not completed
local outcome_key, order_key = unpack(KEYS, 1, 2)
local fingerprint, order_id = unpack(ARGV, 1, 2)
local outcome = redis.call('HMGET', outcome_key, 'fingerprint', 'order')
if outcome[1] ~= fingerprint or outcome[2] ~= order_id then return {'other'} end
local row = redis.call('HMGET', order_key, 'products', 'total_price', 'status', 'created_at', 'expires_at',
                       'completed_at', 'reference', 'customer', 'returned', 'refunded')
if row[3] ~= 'completed' then return {'other'} end
return {'order', row}
