"""What is asked of the servers, and how an answer is checked."""

import datetime
import email.utils
import http.client
import socket
import time
from dataclasses import dataclass, field

import apps

CHECK_SECONDS = 5
PIPELINED = 16
THREADS = 16
IDLE_CONNECTIONS = 10_000

BROWSER_HEAD = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,"
    "image/avif,image/webp,image/apng,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8,fr;q=0.7",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://shop.example.org/list/2f6c1e9d8a4b3c7e5f0a1b2c",
    "Cookie": "session=" + "9f86d081884c7d659a2feaa0c55ad015" * 2 + "; "
    "csrf=a3bf4f1b2b0b822cd15d6c15b0f00a08; seen=40312",
    "Sec-Ch-Ua": '"Chromium";v="131", "Not_A Brand";v="24"',
    "Sec-Ch-Ua-Mobile": "?0",
    "Sec-Ch-Ua-Platform": '"Linux"',
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1",
    "Upgrade-Insecure-Requests": "1",
    "Cache-Control": "max-age=0",
}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One kind of request and the application that answers it.

    kind is "load" (timed by wrk), "idle" (wrk beside idle connections) or
    "start" (the time to the first answer).
    """

    name: str
    title: str
    app: str = "apps:hello"
    answer: bytes = apps.HELLO
    script: str = "plain"
    argument: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    connections: int = 64
    threads: int = 0
    requires: tuple[str, ...] = ()
    kind: str = "load"

    @property
    def measure(self):
        """The figure that ratios are made of; less is better."""
        if self.kind == "start":
            return "start_ms"
        return "p99_ms" if self.threads else "cpu_us"

    @property
    def asgi_app(self):
        """The ASGI twin's name."""
        return self.app.replace("apps:", "apps:asgi_")


WORKLOADS = (
    Workload(name="hello", title="hello"),
    Workload(
        name="head-fixed",
        title="browser head, the same each time",
        headers=BROWSER_HEAD,
    ),
    Workload(
        name="head-varied",
        title="browser head, varied fields",
        headers=BROWSER_HEAD,
        script="varied",
    ),
    Workload(
        name="post-1k",
        title="POST 1 KB",
        app="apps:echo_length",
        answer=b"1024",
        script="post",
        argument=1024,
    ),
    Workload(
        name="post-1m",
        title="POST 1 MB",
        app="apps:echo_length",
        answer=b"1048576",
        script="post",
        argument=1 << 20,
    ),
    Workload(
        name="body-64k",
        title="answer of 64 KB",
        app="apps:body_64k",
        answer=apps.BODY_64K,
    ),
    Workload(
        name="body-1m",
        title="answer of 1 MB",
        app="apps:body_1m",
        answer=apps.BODY_1M,
    ),
    Workload(
        name="stream",
        title="16 chunks of 4 KB",
        app="apps:stream",
        answer=apps.CHUNK * apps.CHUNKS,
    ),
    Workload(
        name="file-1m",
        title="1 MB file, wsgi.file_wrapper",
        app="apps:file_1m",
        answer=apps.BODY_1M,
    ),
    Workload(
        name="close",
        title="Connection: close",
        headers={"Connection": "close"},
    ),
    Workload(
        name="pipelined",
        title=f"pipelined x{PIPELINED}",
        script="pipeline",
        argument=PIPELINED,
    ),
    Workload(name="busy", title="application of 50 us", app="apps:busy"),
    Workload(
        name="sleep",
        title=f"10 ms sleep, {THREADS} threads and clients",
        app="apps:sleep",
        connections=THREADS,
        threads=THREADS,
    ),
    *(
        Workload(
            name=name,
            title=f"10 ms sleep, {threads} threads, {2 * threads} clients",
            app="apps:sleep",
            connections=2 * threads,
            threads=threads,
        )
        for name, threads in (("sleep-queued", THREADS), ("sleep-queued-8", 8))
    ),
    Workload(
        name="flask",
        title="Flask",
        app="flask_app:app",
        requires=("flask",),
    ),
    Workload(name="protocol", title="protocol in Python, fixed answer"),
    Workload(name="on-request", title="without WSGI"),
    Workload(
        name="on-request-pipelined",
        title=f"without WSGI, pipelined x{PIPELINED}",
        script="pipeline",
        argument=PIPELINED,
    ),
    Workload(
        name="idle",
        title=f"64 busy beside {IDLE_CONNECTIONS:,} idle connections",
        kind="idle",
    ),
    Workload(name="start", title="start to first answer", kind="start"),
)


class WrongAnswerError(Exception):
    """The server's answer is not the one the workload asks for."""


def check(workload, port, arrived):
    """Ask, compare, return the facts worth showing beside the figures.

    `arrived` is the file by which a streaming application learns what has
    come. Raises WrongAnswerError, OSError or http.client.HTTPException.
    """
    if workload.script == "pipeline":
        return _check_pipelined(workload, port)
    connection = _connect(port)
    try:
        facts = _check_one(connection, workload)
        if workload.headers.get("Connection") != "close":
            _check_one(connection, workload)
    finally:
        connection.close()
    if workload.name == "stream":
        facts["streams"] = _streams(port, arrived)
    return facts


def _connect(port):
    return http.client.HTTPConnection("127.0.0.1", port, CHECK_SECONDS)


def _check_one(connection, workload):
    method, body = "GET", None
    if workload.script == "post":
        method, body = "POST", b"x" * workload.argument
    connection.request(method, "/", body, workload.headers)
    response = connection.getresponse()
    _compare(response.status, response.read(), workload)
    return {"date": _fault_of_date(response.getheader("Date"))}


def _fault_of_date(text):
    """RFC 9110, 6.6.1: a server with a clock sends the time of its answer."""
    if text is None:
        return "no Date"
    now = datetime.datetime.now(datetime.UTC)
    told = email.utils.parsedate_to_datetime(text)
    if told.tzinfo is None:
        return "no zone in Date"
    late = now - told
    return "" if abs(late) < datetime.timedelta(seconds=3) else "stale Date"


def _compare(status, body, workload):
    if status != 200:
        raise WrongAnswerError(f"status {status}")
    if len(body) != len(workload.answer):
        raise WrongAnswerError(f"{len(body)} bytes, not {len(workload.answer)}")
    if body != workload.answer:
        raise WrongAnswerError("other content")


def _streams(port, arrived):
    """Whether each chunk comes before the application makes the next."""
    arrived.write_bytes(b"")
    connection = _connect(port)
    try:
        started = time.monotonic()
        connection.request("GET", "/?stepwise")
        response = connection.getresponse()
        for number in range(1, apps.CHUNKS + 1):
            if response.read(len(apps.CHUNK)) != apps.CHUNK:
                raise WrongAnswerError("other content when chunks come slowly")
            arrived.write_bytes(bytes(number))
        return time.monotonic() - started < apps.STEP_SECONDS
    finally:
        connection.close()


def _check_pipelined(workload, port):
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    address = ("127.0.0.1", port)
    with socket.create_connection(address, CHECK_SECONDS) as client:
        client.sendall(head * workload.argument)
        with client.makefile("rb") as answers:
            for _ in range(workload.argument):
                status = answers.readline()
                headers = http.client.parse_headers(answers)
                length = headers["Content-Length"]
                if length is None:
                    raise WrongAnswerError("no Content-Length")
                body = answers.read(int(length))
                _compare(int(status.split()[1]), body, workload)
    return {"date": _fault_of_date(headers["Date"])}
