-- wrk script: POST /v1/payments of the fund service. Environment variables: TOKEN, API token; RUN, prefix of the order
-- numbers, different in each run; SEED, of the random numbers; MERCHANTS, number of merchants; HOT, one in HOT payments
-- is to the first merchant.
local run = os.getenv("RUN")
local merchants = tonumber(os.getenv("MERCHANTS"))
local hot = tonumber(os.getenv("HOT"))
local headers = { ["Authorization"] = "Bearer " .. os.getenv("TOKEN"), ["Content-Type"] = "application/json" }
local template = '{"merchant":"b%d","order_no":"%s-%d-%d","amount":%d,"currency":"CNY","channel":"simulator"}'
local sent = 0
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init()
  math.randomseed(tonumber(os.getenv("SEED")) + number)
end

function request()
  sent = sent + 1
  local merchant = math.random(1, hot) == 1 and 1 or math.random(1, merchants)
  local body = string.format(template, merchant, run, number, sent, math.random(100, 50000))
  return wrk.format("POST", "/v1/payments", headers, body)
end
