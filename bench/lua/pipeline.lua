-- As many requests at once as the argument says, then all their answers.
require "report"

function init(arguments)
   batch = string.rep(wrk.format(), tonumber(arguments[1]))
end

function request()
   return batch
end
