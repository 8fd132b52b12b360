#!lua flags=allow-oom
-- Writes something after the commands of a batch, so that a WAIT after it covers them all. Without it, WAIT covers only
-- what its own connection wrote: a replayed order, which another connection wrote, would not be waited for.
-- allow-oom: a full memory must not prevent the release of units that are held.
--
-- KEYS 1   {shop}:meta   hash
--
-- Replies: marked
local meta_key = unpack(KEYS, 1, 1)

-- Write. Always the same value: Redis sends it to its replicas nevertheless.
redis.call('HSET', meta_key, 'mark', '1')
return {'marked'}
