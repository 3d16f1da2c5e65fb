"""Says when it is entered, waits until it is let go: through two pipes."""

import os

from bodies import BLOCK

ENTERED, GATE = int(os.environ["ENTERED"]), int(os.environ["GATE"])


def wait():
    os.write(ENTERED, b"x")
    os.read(GATE, 1)


def stream():
    for number in range(3):
        yield b"%d" % number
        wait()
    yield b"end"


def app(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/gate":
        wait()
    elif path == "/stream":
        return stream()
    elif path == "/endless":
        return iter(lambda: BLOCK, b"")
    elif path == "/large":
        return [BLOCK * 200]
    return [path.encode(), environ["wsgi.input"].read()]
