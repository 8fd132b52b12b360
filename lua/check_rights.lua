#!lua flags=no-writes,allow-oom
-- Finds out which commands the user may not run on which Redis keys. Writes nothing: for a command
-- that writes, Redis checks the rights first, and then refuses it, because this script is read-only.
-- allow-oom: the answer must not depend on the memory.
--
-- KEYS 1..  the Redis keys to try, of any type
-- ARGV 1..  the commands: in each text, the command, then its arguments after the Redis key, separated by spaces
--
-- Replies: denied <line>...    what the user may not do: "<command> <Redis key>"; nothing follows if there is none
local denied = {}
for _, row in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(row, '%S+') do words[#words + 1] = word end
  for i = 1, #KEYS do
    local reply = redis.pcall(words[1], KEYS[i], unpack(words, 2))
    if type(reply) == 'table' and reply.err and
      (string.find(reply.err, 'ACL failure') or string.find(reply.err, 'The user executing the script')) then
      denied[#denied + 1] = words[1] .. ' ' .. KEYS[i]
    end
  end
end
return {'denied', unpack(denied)}
