"""What the micro-benchmarks and the instruction counts measure.

A case is a call without arguments; its answer is checked once. Heads come in
batches of HEADS: all equal ("fixed"), all different ("varied"), or with the
fields of each in an order of its own as well ("shuffled").
"""

import random

from fasthttp import Config
from fasthttp._environ import EnvironTemplate, environ_base
from fasthttp._parser import RequestParser
from fasthttp._protocol import BaseTransport
from fasthttp._serializer import ResponseSerializer
from fasthttp._wsgi import WsgiGateway

HEADS = 64
BODY = bytes(range(256)) * 4
CHUNKS = 64
ANSWER_FIELDS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-cache, private"),
    ("Vary", "Accept-Encoding"),
    ("Set-Cookie", "session=9f86d081884c7d65; Path=/; HttpOnly"),
]


def _small(seed):
    return b"GET /%04x HTTP/1.1\r\nHost: localhost\r\n\r\n" % (seed % 65536)


def _browser(seed):
    """A browser's head of 711 bytes; the seed decides its tokens."""
    tokens = random.Random(seed)

    def token(length):
        return "".join(tokens.choices("0123456789abcdef", k=length))

    fields = (
        f"GET /list/{token(8)}?page={token(4)} HTTP/1.1",
        "Host: shop.example.org",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
        f"(KHTML, like Gecko) Chrome/{100 + seed % 40}.0.0.0 Safari/537.36",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,"
        "image/avif,image/webp,*/*;q=0.8",
        "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Connection: keep-alive",
        f"Referer: https://shop.example.org/list/{token(16)}",
        f"Cookie: session={token(64)}; csrf={token(32)}",
        f"If-None-Match: {token(22)}",
        "Upgrade-Insecure-Requests: 1",
        "Sec-Fetch-Dest: document",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: same-origin",
    )
    return ("\r\n".join(fields) + "\r\n\r\n").encode()


def _shuffled(seed):
    """The same with its fields in an order that no other head has."""
    start, *fields = _browser(seed)[:-4].split(b"\r\n")
    random.Random(seed).shuffle(fields)
    return b"\r\n".join([start, *fields, b"", b""])


def _batches():
    for size, make in (("small", _small), ("browser", _browser)):
        yield f"{size}, fixed", [make(7)] * HEADS
        yield f"{size}, varied", [make(seed) for seed in range(HEADS)]
    yield "browser, shuffled", [_shuffled(seed) for seed in range(HEADS)]


BATCHES = dict(_batches())
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n" % (len(BODY), BODY) * CHUNKS
    + b"0\r\n\r\n"
)


class Sink(BaseTransport):
    """A transport that drops what it is given."""

    def getpeername(self):
        return ("127.0.0.1", 50000)

    def getsockname(self):
        return ("127.0.0.1", 8000)

    def write(self, data):
        return 0

    def close(self):
        return 0


def objects(heads):
    """Heads to method, target and list of fields."""
    parser = RequestParser()

    def run():
        for head in heads:
            request = parser.receive_data(head)[0]
            found = request.method, request.target, request.headers
        return found

    return run


def environ(heads):
    """Heads to an environ, as the gateway makes it."""
    parser = RequestParser()
    template = EnvironTemplate(environ_base(), ("127.0.0.1", 8000))

    def run():
        for head in heads:
            environ = template.environ_of(parser, head)
        return environ

    return run


def answer(heads, keep=True):
    """Heads to an environ, a call of the application and its answer."""
    seen = []

    def app(environ, start_response):
        if keep:
            seen[:] = [environ]
        start_response("200 OK", [("Content-Length", "0")])
        return []

    gateway = WsgiGateway(app, Config(threads=0))
    protocol = gateway(None, Sink(), None)

    def run():
        for head in heads:
            protocol.on_data_received(head)
        return seen[0] if keep else None

    return run


def again(heads):
    """As `answer`, but an environ may serve the next request, too."""
    return answer(heads, keep=False)


def scan(heads):
    """Heads parsed, nothing made of them but one object each."""
    parser = RequestParser()

    def run():
        for head in heads:
            found = parser.receive_data(head)[0]
        return found

    return run


def chunked():
    """The body of a chunked request."""
    parser = RequestParser()

    def run():
        return b"".join(parser.receive_data(CHUNKED)[1:-1])

    return run


def serialized():
    """HEADS response heads."""
    serializer = ResponseSerializer()

    def run():
        for _ in range(HEADS):
            head = serializer.head(200, ANSWER_FIELDS, length=5)
        return head

    return run


COUNTED = {
    f"{kind.__name__}: {batch}": kind(heads)
    for kind in (objects, environ, answer, again)
    for batch, heads in BATCHES.items()
}
COUNTED["chunked"] = chunked()
COUNTED["serialized"] = serialized()
