-- wrk script: POST /v1/vouchers, or lists of them. From the environment: TOKEN; RUN, a UUID less its last 12 digits,
-- different in each run; SEED; ACCOUNTS, 1 for one hot merchant or how many to spread over; SIZE, vouchers in a list, 0
-- for single ones; IDS, "ordered" (as time-ordered UUIDs are) or "random".
local run = os.getenv("RUN")
local accounts = tonumber(os.getenv("ACCOUNTS"))
local size = tonumber(os.getenv("SIZE"))
local random_ids = os.getenv("IDS") == "random"
local path = size > 0 and "/v1/vouchers/batch" or "/v1/vouchers"
local headers = { ["Authorization"] = "Bearer " .. os.getenv("TOKEN"), ["Content-Type"] = "application/json" }
local template = '{"id":"%s","type":"pay","entries":[{"account":"bank:bench","side":"debit","amount":100},'
  .. '{"account":"merchant:%d:available","side":"credit","amount":100}]}'
local sent = 0
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init()
  math.randomseed(tonumber(os.getenv("SEED")) + number)
end

local function id()
  if random_ids then
    local r = math.random
    local head = string.format("%08x-%04x-4%03x-a%03x", r(0, 4294967295), r(0, 65535), r(0, 4095), r(0, 4095))
    return string.format("%s-%06x%06x", head, r(0, 16777215), r(0, 16777215))
  end
  sent = sent + 1
  return string.format("%s%02x%010x", run, number, sent)
end

local function voucher()
  return string.format(template, id(), accounts > 1 and math.random(1, accounts) or 1)
end

function request()
  if size == 0 then
    return wrk.format("POST", path, headers, voucher())
  end
  local list = {}
  for i = 1, size do
    list[i] = voucher()
  end
  return wrk.format("POST", path, headers, '{"vouchers":[' .. table.concat(list, ",") .. "]}")
end
