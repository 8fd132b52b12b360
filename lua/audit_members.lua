#!lua flags=no-writes
-- Reads scores in indexes of orders.
--
-- KEYS 1..  {shop}:orders:customer:<customer> or {shop}:orders:reference:<reference>   zset, ids of orders, score = id
-- ARGV 1..  order ids, one per key
--
-- Replies: scores <score>...   one score per key, possibly nil
--          If the key is not a zset, the score is the error message.
local reply = {'scores'}
for i = 1, #KEYS do
  local score = redis.pcall('ZSCORE', KEYS[i], ARGV[i])
  reply[1 + i] = type(score) == 'table' and score.err or score
end
return reply
