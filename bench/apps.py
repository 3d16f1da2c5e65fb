"""The workloads' applications: WSGI first, their ASGI twins below.

Nothing heavy is imported here: every server's start-up time and memory
include this module.
"""

import os
import time

HELLO = b"hello"
BODY_64K = bytes(range(256)) * 256
BODY_1M = BODY_64K * 16
CHUNK = b"0123456789abcdef" * 256
CHUNKS = 16
STEP_SECONDS = 2
BUSY_NS = 50_000
SLEEP_SECONDS = 0.01
FILE_BLOCK = 65536


def _fixed(body):
    headers = [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(body))),
    ]

    def app(environ, start_response):
        start_response("200 OK", list(headers))
        return [body]

    return app


hello = _fixed(HELLO)
body_64k = _fixed(BODY_64K)
body_1m = _fixed(BODY_1M)


def echo_length(environ, start_response):
    """Read the whole body, answer its length."""
    expected = int(environ["CONTENT_LENGTH"])
    body = str(len(environ["wsgi.input"].read(expected))).encode()
    headers = [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(body))),
    ]
    start_response("200 OK", headers)
    return [body]


def stream(environ, start_response):
    """Yield the chunks; with a query, each when the last has arrived.

    The client tells by the length of the file BENCH_ARRIVED. A server that
    joins chunks waits in vain: after STEP_SECONDS the rest comes at once.
    """
    start_response("200 OK", [("Content-Type", "text/plain")])
    stepwise = environ.get("QUERY_STRING")
    give_up = time.monotonic() + STEP_SECONDS
    for sent in range(CHUNKS):
        while stepwise and _arrived() < sent and time.monotonic() < give_up:
            time.sleep(0.001)
        yield CHUNK


def _arrived():
    return os.path.getsize(os.environ["BENCH_ARRIVED"])


def file_1m(environ, start_response):
    """Send the file named by BENCH_FILE, by the server's own means."""
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", str(len(BODY_1M))),
    ]
    start_response("200 OK", headers)
    file = open(os.environ["BENCH_FILE"], "rb")  # noqa: SIM115
    wrapper = environ.get("wsgi.file_wrapper", _read_blocks)
    return wrapper(file, FILE_BLOCK)


def _read_blocks(file, size):
    with file:
        while block := file.read(size):
            yield block


def busy(environ, start_response):
    """Use the processor for BUSY_NS."""
    until = time.perf_counter_ns() + BUSY_NS
    while time.perf_counter_ns() < until:
        pass
    return hello(environ, start_response)


def sleep(environ, start_response):
    """Wait, as for a database, off the processor."""
    time.sleep(SLEEP_SECONDS)
    return hello(environ, start_response)


def _asgi_head(length=None):
    headers = [(b"content-type", b"text/plain")]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _asgi_fixed(body):
    async def app(scope, receive, send):
        await send(_asgi_head(len(body)))
        await send({"type": "http.response.body", "body": body})

    return app


asgi_hello = _asgi_fixed(HELLO)
asgi_body_64k = _asgi_fixed(BODY_64K)
asgi_body_1m = _asgi_fixed(BODY_1M)


async def asgi_echo_length(scope, receive, send):
    """Read the whole body, answer its length."""
    length = 0
    more = True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await _asgi_fixed(str(length).encode())(scope, receive, send)


async def asgi_stream(scope, receive, send):
    """Send the chunks; with a query, each when the last has arrived."""
    import asyncio

    message = {"type": "http.response.body", "body": CHUNK, "more_body": True}
    await send(_asgi_head())
    stepwise = scope["query_string"]
    give_up = time.monotonic() + STEP_SECONDS
    for sent in range(CHUNKS):
        while stepwise and _arrived() < sent and time.monotonic() < give_up:
            await asyncio.sleep(0.001)
        await send(message)
    await send({"type": "http.response.body"})


async def asgi_busy(scope, receive, send):
    """Use the processor for BUSY_NS."""
    until = time.perf_counter_ns() + BUSY_NS
    while time.perf_counter_ns() < until:
        pass
    await asgi_hello(scope, receive, send)
