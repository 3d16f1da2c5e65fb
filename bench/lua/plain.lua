-- The same request over and over; its headers come from the command line.
require "report"
