#!lua
-- Remembers a refusal under an Idempotency-Key, unless the key has an outcome already. One partition alone cannot
-- refuse a request for lack of units: that was decided with the stock of all of them.
--
-- KEYS 1  {shop:p}:refusals             number
--      2  {shop:p}:idempotency:<key>    hash
-- ARGV 1  fingerprint       text, the same if a request is repeated
--      2  refusal           text, as docs/data.md describes it
--      3  refusal_ms        ms for which the Idempotency-Key remembers a refusal
--      4  short_refusal_ms  the same, if refusals_max refusals are remembered already
--      5  refusals_max      number of refusals in refusal_ms that are remembered for so long
--
-- Replies: remembered
--          replayed <id>    an earlier request with this Idempotency-Key placed this order, or changed this product
--          refused <text>   an earlier request with this Idempotency-Key was refused
--          reused           an earlier request with this Idempotency-Key had another fingerprint
local refusals_key, outcome_key = unpack(KEYS, 1, 2)
local fingerprint, refusal, refusal_ms, short_refusal_ms, refusals_max = unpack(ARGV, 1, 5)

-- Decide.
local first_fingerprint, order_id, product_id, refusal_text = unpack(
  redis.call('HMGET', outcome_key, 'fingerprint', 'order', 'product', 'refusal'))
if first_fingerprint and first_fingerprint ~= fingerprint then return {'reused'} end
if order_id or product_id then return {'replayed', order_id or product_id} end
if refusal_text then return {'refused', refusal_text} end
local refusals = tonumber(redis.call('GET', refusals_key) or 0)
assert(refusals and refusals % 1 == 0, 'the number of remembered refusals is not a number')
local kept_ms = refusals < tonumber(refusals_max) and refusal_ms or short_refusal_ms

-- Write. Nothing below can fail: the types of all Redis keys are known.
redis.call('INCRBY', refusals_key, 1)
if refusals == 0 then redis.call('PEXPIRE', refusals_key, refusal_ms) end
redis.call('HSET', outcome_key, 'fingerprint', fingerprint, 'refusal', refusal)
redis.call('PEXPIRE', outcome_key, kept_ms)
return {'remembered'}
