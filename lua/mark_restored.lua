#!lua
-- Marks a shop that was restored from a backup: its ids continue far above all that may have been given away after the
-- backup, workers notice that the data are others, and the event stream says what happened.
--
-- KEYS 1   {shop}:ids:orders     number
--      2   {shop}:ids:products   number
--      3   {shop}:skipped        zset, first id of each range of order ids without an order, score = last id
--      4   {shop}:meta           hash
--      5   {shop}:events         stream
-- ARGV 1   expected_order     the value that the first counter must still have, as text; empty: it must be absent
--      2   expected_product   the same for the second counter
--      3   order_step         whole number to add to the first counter
--      4   product_step       whole number to add to the second counter
--      5   first_skipped      the first order id that no order may have
--      6   last_skipped       the last one
--      7   data_id            a random text
--      8   last_event         id of the last event in the backup
--      9   event_id           id of the event that is written: above all that may have been written after the backup
--      10  events_max         approximate number of entries to keep in the stream
--
-- Replies: marked
--          changed   a counter has another value: a service is running; nothing was changed
local orders_key, products_key, skipped_key, meta_key, events_key = unpack(KEYS, 1, 5)
local expected_order, expected_product, order_step, product_step, first_skipped, last_skipped, data_id, last_event, event_id, events_max = unpack(ARGV, 1, 10)
assert(events_max, 'too few arguments')

-- Decide. ZCARD and HGET are called only because they fail on a key of another type, before anything is written.
if (redis.call('GET', orders_key) or '') ~= expected_order then return {'changed'} end
if (redis.call('GET', products_key) or '') ~= expected_product then return {'changed'} end
for _, text in ipairs({expected_order, expected_product}) do assert(string.find(text, '^%d*$'), 'no counter') end
redis.call('ZCARD', skipped_key)
redis.call('HGET', meta_key, 'data_id')

-- Write. XADD comes first: it fails if the stream has a later event, or if its key has another type.
redis.call('XADD', events_key, 'MAXLEN', '~', events_max, event_id, 'event', 'shop_restored', 'last_event', last_event,
  'last_order', string.format('%.0f', first_skipped - 1), 'next_order', string.format('%.0f', last_skipped + 1))
redis.call('INCRBY', orders_key, order_step)
redis.call('INCRBY', products_key, product_step)
redis.call('ZADD', skipped_key, last_skipped, first_skipped)
redis.call('HSET', meta_key, 'data_id', data_id)
return {'marked'}
