"""Breaks every rule that an application can break, as the path says."""

import json
import os
import select
import signal
import socket
import stat
import sys
import threading

from bodies import BLOCK

LARGE = BLOCK * 64
unfinished = set()

if "SIGPIPE" in os.environ:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


class Stream:
    """Large blocks without an end; known as unfinished until its close."""

    def __init__(self):
        unfinished.add(self)

    def __iter__(self):
        return self

    def __next__(self):
        return BLOCK

    def close(self):
        unfinished.discard(self)


class RaisingClose(list):
    def close(self):
        raise ValueError("in close()")


def parts(count=2):
    for _ in range(count):
        yield b"part"


def before(start_response):
    raise ValueError("before start_response()")


def between(start_response):
    start_response("200 OK", [])
    yield from parts()
    raise ValueError("between two parts")


def before_parts(start_response):
    start_response("200 OK", [])
    if BLOCK:
        raise ValueError("before the first part")
    yield b""


def after(start_response):
    start_response("200 OK", [])
    return RaisingClose([b"all ", b"sent"])


def leaving(start_response):
    sys.exit(3)


def leaving_late(start_response):
    start_response("200 OK", [])
    yield b"part"
    sys.exit(3)


def garbage(kind):
    def answer(start_response):
        start_response("200 OK", [])
        return {
            "none": None,
            "number": 7,
            "text": "text",
            "texts": ["text"],
            "mixed": [b"bytes", None],
            "array": bytearray(b"x"),
        }[kind]

    return answer


def bad_start(kind):
    def answer(start_response):
        start_response(
            *{
                "status": (200, []),
                "code": ("20 OK", []),
                "split": ("200 OK\r\nA: b", []),
                "fields": ("200 OK", None),
                "field": ("200 OK", [("A", 1)]),
                "name": ("200 OK", [("A b", "c")]),
                "value": ("200 OK", [("A", "b\r\nC: d")]),
            }[kind]
        )
        return [b""]

    return answer


def never(start_response):
    return [b"without start_response()"]


def blocked(start_response):
    threading.Event().wait()


def large_file():
    fd = os.memfd_create("large")
    os.truncate(fd, 1 << 24)
    return os.fdopen(fd, "rb")


def close_descriptor(environ):
    os.close(descriptor_of(environ))


def wait_for_reset(environ):
    fd, port = descriptor_of(environ), int(environ["REMOTE_PORT"])
    poll = select.poll()
    poll.register(fd, 0)
    # The loop may have closed it, and the number may have come again.
    while has_peer(fd, port) and not poll.poll(10):
        pass


def written(start_response):
    """An application that cannot be made to wait."""
    write = start_response("200 OK", [])
    for _ in range(64):
        write(BLOCK)
    return []


def descriptor_of(environ):
    """That of this request's own connection."""
    port = int(environ["REMOTE_PORT"])
    for fd in map(int, os.listdir("/proc/self/fd")):
        if has_peer(fd, port):
            return fd
    raise LookupError(port)


def has_peer(fd, port):
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as copy:
            return copy.getpeername()[1:2] == (port,)
    except OSError:
        return False


WAYS = {
    "/raise/before": before,
    "/raise/before-parts": before_parts,
    "/raise/between": between,
    "/raise/after": after,
    "/exit": leaving,
    "/exit/late": leaving_late,
    "/never": never,
    "/block": blocked,
    "/written": written,
}


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path in WAYS:
        return WAYS[path](start_response)
    if path.startswith("/garbage/"):
        return garbage(path.removeprefix("/garbage/"))(start_response)
    if path.startswith("/start/"):
        return bad_start(path.removeprefix("/start/"))(start_response)
    if path.startswith("/descriptor/"):
        close_descriptor(environ)
        if path.endswith("/taken"):
            environ["wsgi.errors"].flush()
            with open(os.devnull, "rb"):
                start_response("200 OK", [])
                return [b"nobody reads this"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/large":
        return [LARGE]
    if path == "/stream":
        return Stream()
    if path.startswith("/file"):
        if path == "/file/too-late":
            wait_for_reset(environ)
        return environ["wsgi.file_wrapper"](large_file())
    if path == "/state":
        state = {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "unfinished": len(unfinished),
        }
        return [json.dumps(state).encode()]
    return [b"%d" % len(environ["wsgi.input"].read())]
