-- A browser's head whose fields differ from request to request.
require "report"

local KINDS = 1024
local requests = {}
local at = 0

local function token(length)
   local digits = {}
   for i = 1, length do
      digits[i] = string.format("%x", math.random(0, 15))
   end
   return table.concat(digits)
end

function init(arguments)
   math.randomseed(7)
   local headers = wrk.headers
   for i = 1, KINDS do
      local path = "/?page=" .. i .. "&item=" .. token(math.random(4, 12))
      headers["Referer"] = "https://shop.example.org/list/" .. token(24)
      headers["Cookie"] = "session=" .. token(64) .. "; csrf=" .. token(32)
         .. "; seen=" .. math.random(1, 99999)
      headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:"
         .. math.random(90, 140) .. ".0) Gecko/20100101 Firefox/"
         .. math.random(90, 140) .. ".0 build/" .. token(16)
      headers["If-None-Match"] = '"' .. token(32) .. '"'
      headers["X-Request-Id"] = token(32)
      requests[i] = wrk.format(nil, path)
   end
end

function request()
   at = at % KINDS + 1
   return requests[at]
end
