-- POST a body of the size given as argument.
require "report"

function init(arguments)
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/octet-stream"
   wrk.body = string.rep("x", tonumber(arguments[1]))
end
