"""What answers the fuzzed requests: in every way an application can.

The first letter of the path chooses the way.
"""

import tempfile
from collections import deque
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from fasthttp._http1 import HttpProtocol
from fasthttp._wsgi import FileWrapper, WsgiGateway
from fasthttp.config import Config

BODY = b"0123456789"
LARGE = bytes(70000)
PLAIN = [("Content-Type", "text/plain")]
WIDE = Config()
NARROW = Config(
    body_memory=64,
    header_timeout=0,
    keep_alive=0,
    limit_request_body=200,
    limit_request_field_size=100,
    limit_request_fields=5,
    limit_request_head=200,
    limit_request_line=60,
    server_header=False,
)
FILE = tempfile.TemporaryFile()  # noqa: SIM115
FILE.write(BODY)


class Request(NamedTuple):
    """What an application was given; `environ` only of WSGI."""

    method: str
    target: str
    body: bytes
    environ: dict[str, str]


class Server:
    """The loop's part: what is called soon waits in `calls`."""

    def __init__(self):
        self.calls = deque()

    def is_forked(self):
        return False

    def call_soon_threadsafe(self, callback, *args):
        self.calls.append((callback, args))


SERVER = Server()
requests = []
waiting = []


def begin():
    """Forget the connection before."""
    requests.clear()
    waiting.clear()
    SERVER.calls.clear()


def answer_waiting():
    """Answer the request that was put off, if any."""
    if waiting:
        waiting.pop().respond(200, PLAIN, BODY)


def expected(head, body, request):
    """What the application must have been given for these."""
    environ = expected_environ(head, body) if request.environ else {}
    return Request(head.method, head.target, body, environ)


def expected_environ(head, body):
    """The variables of PEP 3333 that come from the request."""
    fields = {}
    for name, value in head.headers:
        if "_" not in name:
            glue = "; " if name == "cookie" else ", "
            fields[name] = (
                fields[name] + glue + value if (name in fields) else value
            )
    if head.chunked:
        del fields["transfer-encoding"]
        fields["content-length"] = str(len(body))
    if "host" in fields or head.authority:
        fields["host"] = head.authority
    own = "content-type", "content-length"
    environ = {
        ("" if name in own else "HTTP_") + name.upper().replace("-", "_"): text
        for name, text in fields.items()
    }
    path, _, query = head.target.partition("?")
    if "://" in path and not path.startswith("/"):
        path = path.partition("://")[2]
        path = path[path.index("/") :] if "/" in path else "/"
    elif not path.startswith("/"):
        path = query = ""
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")
    environ["QUERY_STRING"] = query
    environ["SERVER_PROTOCOL"] = f"HTTP/1.{head.minor}"
    return environ


def note_access(address, line, status, size, referer, agent):
    """An access log that reads what it is given."""
    assert address == "192.0.2.1", address
    for text in (line, referer, agent):
        assert not set(text) & set("\r\n\0"), text
    assert 200 <= status < 600, status
    assert size >= 0, size


class Wide(HttpProtocol):
    """Answers at once, in parts, later, wrongly or not at all."""

    config = WIDE

    def on_request(self, request):
        """Take the way that the path names."""
        body = request.body
        assert request.stream.read() == body
        assert request.remote == ("192.0.2.1", 4711)
        requests.append(Request(request.method, request.target, body, {}))
        way = self.ways.get(request.target[1:2])
        if way is None:
            self.respond("200 OK", PLAIN, BODY)
        else:
            way(self)

    def later(self):
        waiting.append(self)

    def in_parts(self, data=BODY):
        self.start(200, PLAIN)
        for part in (data, b"", data):
            self.write(part)
        self.end()

    def large(self):
        self.respond(200, PLAIN, LARGE)

    def large_parts(self):
        self.in_parts(LARGE)

    def closing(self):
        self.respond(200, [*PLAIN, ("Connection", "close")], BODY)

    def bodiless(self):
        self.respond(204, PLAIN, BODY)

    def unchanged(self):
        self.respond(304, [*PLAIN, ("Content-Length", "7")])

    def reset_content(self):
        self.respond(205, PLAIN, BODY)

    def too_long(self):
        self.respond(200, [("Content-Length", "3")], BODY)

    def too_short(self):
        self.respond(200, [("Content-Length", "30")], BODY)

    def bad_header(self):
        self.respond(200, [("A", "b\r\nC: d")], BODY)

    def bad_status(self):
        self.respond(99, PLAIN)

    def raising(self):
        raise ValueError

    def raising_late(self):
        self.start(200, PLAIN)
        self.write(BODY)
        raise ValueError

    def twice(self):
        self.respond(200, PLAIN, BODY)
        self.respond(200, PLAIN, BODY)

    ways = dict(
        zip(
            "lpzZcnurtshexX2",
            (
                later, in_parts, large, large_parts, closing, bodiless,
                unchanged, reset_content, too_long, too_short, bad_header,
                bad_status, raising, raising_late, twice,
            ),
            strict=True,
        )
    )  # fmt: skip


class Narrow(Wide):
    """With limits that short inputs pass."""

    config = NARROW
    access_log = staticmethod(note_access)


def application(environ, start_response):
    """A WSGI application that takes the way that the path names."""
    requests.append(
        Request(
            environ["REQUEST_METHOD"],
            environ["RAW_URI"],
            environ["wsgi.input"].read(),
            {
                name: value
                for name, value in environ.items()
                if name.startswith(("HTTP_", "CONTENT_"))
                or name in ("PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL")
            },
        )
    )
    way = WAYS.get(environ["PATH_INFO"][1:2])
    if way is not None:
        return way(start_response)
    start_response("200 OK", PLAIN)
    return [BODY]


def in_parts(start_response, part=BODY, count=3):
    start_response("200 OK", PLAIN)
    for _ in range(count):
        yield part
        yield b""


def many_parts(start_response):
    return in_parts(start_response, count=300)


def large_parts(start_response):
    return in_parts(start_response, LARGE)


def raising(start_response):
    raise ValueError


def raising_late(start_response):
    yield from in_parts(start_response)
    raise ValueError


def leaving(start_response):
    yield from in_parts(start_response)
    raise SystemExit


def replaced(start_response):
    start_response("200 OK", PLAIN)
    try:
        raise ValueError
    except ValueError as error:
        start_response("500 Sorry", PLAIN, (ValueError, error, None))
    return [BODY]


def replaced_late(start_response):
    yield from in_parts(start_response)
    try:
        raise ValueError
    except ValueError as error:
        start_response("500 Sorry", PLAIN, (ValueError, error, None))


def unstarted(start_response):
    return [BODY]


def garbage(start_response):
    start_response("200 OK", PLAIN)
    return ["text", None]


def large_list(start_response):
    start_response("200 OK", PLAIN)
    return [LARGE, LARGE]


def number(start_response):
    start_response("200 OK", PLAIN)
    return 7


def bad_header(start_response):
    start_response("200 OK", [("A", "b\r\nC: d")])
    return [BODY]


def written(start_response, part=BODY):
    write = start_response("200 OK", PLAIN)
    write(part)
    return [part]


def large_written(start_response):
    return written(start_response, LARGE * 5)


def a_file(start_response):
    start_response("200 OK", PLAIN)
    FILE.seek(2)
    return FileWrapper(FILE)


def too_long(start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [BODY, BODY]


def too_short(start_response):
    start_response("200 OK", [("Content-Length", "30")])
    return iter([BODY, BODY])


def bodiless(start_response):
    start_response("204 No Content", PLAIN)
    return [BODY]


def closing(start_response):
    start_response("200 OK", [("Connection", "close")])
    return (BODY, BODY)


WAYS = dict(
    zip(
        "pmZLxXSeEugNhwWftsnc",
        (
            in_parts, many_parts, large_parts, large_list, raising,
            raising_late, leaving, replaced, replaced_late, unstarted,
            garbage, number,
            bad_header, written, large_written, a_file, too_long, too_short,
            bodiless, closing,
        ),
        strict=True,
    )
)  # fmt: skip
WIDE_GATEWAY = WsgiGateway(application, Config(threads=0))
NARROW_GATEWAY = WsgiGateway(
    application,
    Config(
        threads=0, body_memory=64, limit_request_body=200,
        limit_request_field_size=100, limit_request_fields=5,
        limit_request_head=200, limit_request_line=60,
    ),
    access_log=note_access,
)  # fmt: skip
