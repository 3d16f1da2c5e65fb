"""What the peers are tried on: tests/apps/plain.py and any status."""

from plain import PLACES


def status(environ, start_response):
    """The status that the query says, the request's body unread."""
    number = environ["QUERY_STRING"]
    bare = number in ("204", "304")
    fields = [] if bare else [("Content-Type", "text/plain")]
    start_response(f"{number} Status", fields)
    return [] if bare else [number.encode()]


PLACES = PLACES | {"/status": status}


def app(environ, start_response):
    return PLACES[environ["PATH_INFO"]](environ, start_response)
