"""`python -m fasthttp`."""

import sys

from .cli import command

sys.exit(command())
