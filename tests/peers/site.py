"""What the peers are tried on: tests/apps/plain.py and a few places more."""

import json

from bodies import digest
from plain import PLACES, text


def framing(environ, start_response):
    """How the body came, and what it was."""
    found = digest(environ["wsgi.input"]) | {
        "length": environ.get("CONTENT_LENGTH") or None,
        "coding": environ.get("HTTP_TRANSFER_ENCODING"),
    }
    return text([json.dumps(found).encode()], start_response)


def status(environ, start_response):
    """The status that the query says, its body unread."""
    number = environ["QUERY_STRING"]
    bare = number in ("204", "304")
    fields = [] if bare else [("Content-Type", "text/plain")]
    start_response(f"{number} Status", fields)
    return [] if bare else [number.encode()]


PLACES = PLACES | {"/framing": framing, "/status": status}


def app(environ, start_response):
    return PLACES[environ["PATH_INFO"]](environ, start_response)
