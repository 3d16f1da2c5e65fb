"""A raw HTTP client: what is sent and what comes back stays visible."""

import http.client
import socket
import struct
from typing import NamedTuple

PATIENCE = 20


class Response(NamedTuple):
    """One response; `framing` is length, chunked, close or none."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    framing: str


class Connection:
    """Sends bytes, reads one response after the other."""

    def __init__(self, address, *, receive_buffer=0):
        family = socket.AF_UNIX
        if isinstance(address, tuple):
            family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
        self.socket = socket.socket(family)
        if receive_buffer:
            self.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer
            )
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def request(self, target="/", *fields, method="GET", body=b""):
        """Send an HTTP/1.1 request with the given `Name: value` lines."""
        lines = [f"{method} {target} HTTP/1.1", "Host: test", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "", ""])
        return self.send(head.encode("latin-1") + body)

    def head(self):
        """Read a status line and the header fields."""
        line = self.file.readline()
        if not line:
            raise EOFError("the server closed the connection")
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        return int(status), http.client.parse_headers(self.file)

    def chunk(self):
        """Read one chunk; the last one is empty."""
        data = self.exactly(int(self.file.readline(), 16))
        assert self.file.readline() == b"\r\n"
        return data

    def exactly(self, size):
        data = self.file.read(size)
        assert len(data) == size, "the body ends too early"
        return data

    def response(self, method="GET"):
        """Read one whole response to a request of `method`."""
        status, headers = self.head()
        if method == "HEAD" or status in (204, 304):
            return Response(status, headers, b"", "none")
        if headers["Transfer-Encoding"] == "chunked":
            body = b"".join(iter(self.chunk, b""))
            return Response(status, headers, body, "chunked")
        if (length := headers["Content-Length"]) is not None:
            return Response(
                status, headers, self.exactly(int(length)), "length"
            )
        return Response(status, headers, self.file.read(), "close")

    def get(self, *arguments, **options):
        """Send a request and read its response."""
        method = options.get("method", "GET")
        return self.request(*arguments, **options).response(method)

    def is_cut(self):
        """True if the chunks that come end before the last one."""
        try:
            return not self.file.read().endswith(b"0\r\n\r\n")
        except ConnectionError:
            return True

    def at_end(self):
        """True when the server has closed and nothing more was sent."""
        return self.file.read(1) == b""

    def close(self):
        self.file.close()
        self.socket.close()

    def reset(self):
        """Leave with a RST, as a client does that crashed."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()
