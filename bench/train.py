"""What a profile-guided build learns from: a bit of everything.

Run with a package built by FASTHTTP_PROFILE=record; it notes which way each
branch goes and where each call leads, and writes that down at its exit. The
applications and requests are not those of the workloads: what is measured
is not what was trained.
"""

import contextlib
import http.client
import random
import socket
import tempfile
import threading

import cases
import protocols

from fasthttp import AsyncSocketServer, HttpProtocol, Server

CLIENTS = 16
ROUNDS = 200
PIPELINED = 8
PAGE = "<p>A page of some length, as an application renders it.\n" * 30
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


def app(environ, start_response):
    """Answer /page, /items, /upload, /export, /image and /file."""
    path = environ["PATH_INFO"].rpartition("/")[2]
    status, headers, body = globals()[f"answer_{path}"](environ)
    start_response(status, headers)
    return body


def answer_page(environ):
    query = environ.get("QUERY_STRING", "")
    body = f"{PAGE}{query}{environ.get('HTTP_COOKIE', '')}".encode()
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "private"),
        ("Set-Cookie", f"seen={len(query)}; HttpOnly"),
        ("X-Frame-Options", "DENY"),
    ]
    return "200 OK", headers, [body]


def answer_items(environ):
    body = b'{"method": "%b"}' % environ["REQUEST_METHOD"].encode()
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
    ]
    return "404 Not Found", headers, [body]


def answer_upload(environ):
    body = environ["wsgi.input"].read()
    return "201 Created", [("Content-Type", "text/plain")], [body[:300]]


def answer_export(environ):
    lines = (f"{number},{number * number}\n".encode() for number in range(20))
    return "200 OK", [("Content-Type", "text/csv")], lines


def answer_image(environ):
    return "200 OK", [("Content-Type", "image/png")], [bytes(50_000)]


def answer_file(environ):
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(bytes(20_000))
    file.seek(0)
    return "200 OK", [], environ["wsgi.file_wrapper"](file)


def requests(seed):
    """Endless requests: (method, target, body, fields)."""
    chosen = random.Random(seed)
    browser = {
        "User-Agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:128.0)"
        f" Gecko/20100101 Firefox/{chosen.randrange(100, 140)}.0",
        "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
        "Accept-Language": "fr,en-US;q=0.7",
        "Cookie": f"id={chosen.randbytes(20).hex()}; theme=dark",
        "Sec-Fetch-Site": "cross-site",
    }
    program = {"User-Agent": "curl/8.9.1", "Accept": "*/*"}
    while True:
        number = chosen.randrange(10_000)
        browser["Referer"] = f"https://news.example/{number:x}"
        yield "GET", f"/page?number={number}", None, browser
        yield "GET", "/page", None, browser
        yield "GET", f"/shop/%7Eitem/{number}/items", None, program
        yield "PUT", "/items", b"", program
        yield "POST", "/upload", bytes(chosen.randrange(4000)), program
        yield "POST", "/upload", iter([b"in", b"chunks"]), browser
        yield "GET", "/export", None, browser
        yield "GET", "/image", None, {}
        yield "HEAD", "/page", None, {"Connection": "close"}
        yield "GET", "/file", None, program


def play(host, port):
    """CLIENTS ask at once and read at once, ROUNDS times."""
    plans = [requests(seed) for seed in range(CLIENTS)]
    clients = [http.client.HTTPConnection(host, port) for _ in plans]
    for _ in range(ROUNDS):
        for client, plan in zip(clients, plans, strict=True):
            client.request(*next(plan))
        for client in clients:
            client.getresponse().read()
    for client in clients:
        client.close()


def pipeline(host, port):
    """Several requests in one packet, the last one closes."""
    get = b"GET /page HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    sent = get % b"" * (PIPELINED - 1) + get % b"Connection: close\r\n"
    for _ in range(ROUNDS):
        with socket.create_connection((host, port)) as client:
            client.sendall(sent)
            while client.recv(65536):
                pass


class Items(HttpProtocol):
    """Answers without WSGI."""

    def on_request(self, request):
        body = f"{request.method} {request.path} {len(request.body)}"
        self.respond(200, [("Content-Type", "text/plain")], body)


@contextlib.contextmanager
def serving(protocol):
    """An AsyncSocketServer in a thread."""
    server = AsyncSocketServer("127.0.0.1", 0, protocol, backlog=64)
    loop = threading.Thread(target=server.accept_clients)
    loop.start()
    try:
        yield server.host, server.port
    finally:
        server.shutdown(0)
        loop.join()


def main():
    """Play everything."""
    for name, run in cases.COUNTED.items():
        print(f"training: {name}", flush=True)
        for _ in range(ROUNDS // 10):
            run()
    for threads in 0, 1, 4:
        print(f"training: an application, {threads} threads", flush=True)
        with Server(app, port=0, threads=threads) as server:
            for way in play, pipeline:
                way(*server.addresses[0])
    for protocol in protocols.fixed(ANSWER), Items:
        print(f"training: {protocol.__name__}", flush=True)
        with serving(protocol) as address:
            play(*address)


if __name__ == "__main__":
    main()
