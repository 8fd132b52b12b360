-- Orders of two lines for wrk, for one shop after the other. Arguments: the prefixes of the paths.
local threads = {}
local prefixes
local headers = {['Content-Type'] = 'application/json'}
placed, other = 0, 0

function setup(thread) threads[#threads + 1] = thread end

function init(args)
  prefixes = args
  math.randomseed(1)
end

function request()
  local first = math.random(100)
  local body = '{"products": [{"product_id": ' .. first .. ', "quantity": 1}, {"product_id": ' .. first % 100 + 1 .. ', "quantity": 2}]}'
  return wrk.format('POST', prefixes[math.random(#prefixes)] .. '/orders', headers, body)
end

function response(status)
  if status == 201 then placed = placed + 1 else other = other + 1 end
end

function done(summary)
  local placed, other = 0, 0
  for _, thread in ipairs(threads) do
    placed, other = placed + thread:get('placed'), other + thread:get('other')
  end
  io.write(string.format('{"placed": %d, "other": %d, "seconds": %.3f}\n', placed, other, summary.duration / 1e6))
end
