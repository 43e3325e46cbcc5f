-- wrk script: POST /v1/vouchers, single or in batches. Environment variables: TOKEN, API token; RUN, a UUID without its
-- last 12 digits, different in each run; SEED, of the random numbers; ACCOUNTS, number of merchants (1: one hot
-- merchant); SIZE, number of vouchers in a batch (0: single vouchers); IDS, "ordered" (like time-ordered UUIDs) or
-- "random"; SHAPE, "even", "zipf" (the share of the n-th merchant is proportional to n^-1.1) or "refund" (every other
-- voucher is one).
local run = os.getenv("RUN")
local accounts = tonumber(os.getenv("ACCOUNTS"))
local size = tonumber(os.getenv("SIZE"))
local random_ids = os.getenv("IDS") == "random"
local path = size > 0 and "/v1/vouchers/batch" or "/v1/vouchers"
local headers = { ["Authorization"] = "Bearer " .. os.getenv("TOKEN"), ["Content-Type"] = "application/json" }
local template = '{"id":"%s","type":"pay","entries":[{"account":"bank:bench","side":"debit","amount":100},'
  .. '{"account":"merchant:%d:available","side":"credit","amount":100}]}'
local refund = '{"id":"%s","type":"refund","entries":[{"account":"merchant:%d:available","side":"debit","amount":90},'
  .. '{"account":"bank:bench","side":"credit","amount":90}]}'
local shape = os.getenv("SHAPE")
local cumulative = {}
local sent = 0
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init()
  math.randomseed(tonumber(os.getenv("SEED")) + number)
  local sum = 0
  for i = 1, shape == "zipf" and accounts or 0 do
    sum = sum + i ^ -1.1
    cumulative[i] = sum
  end
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

local function merchant()
  if shape ~= "zipf" then
    return accounts > 1 and math.random(1, accounts) or 1
  end
  local wanted = math.random() * cumulative[accounts]
  local low, high = 1, accounts
  while low < high do
    local middle = math.floor((low + high) / 2)
    if cumulative[middle] < wanted then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function voucher()
  local kind = shape == "refund" and math.random() < 0.5 and refund or template
  return string.format(kind, id(), merchant())
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
