"""Real clients of the real command: what they reuse, send and receive."""

import contextlib
import http.client
import io
import json
import re
import shutil
import subprocess
from concurrent import futures

import httpx
import pytest
import requests

from tests.apps.bodies import BLOCK, described, in_parts
from tests.apps.serving import serving
from tests.apps.wire import PATIENCE, Connection

COUNT = 500
UPLOAD = BLOCK * 300


@pytest.fixture(scope="module")
def large_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "large"
    path.write_bytes(BLOCK * COUNT)
    return path


@pytest.fixture(scope="module", params=["0", "2"], ids=["loop", "pool"])
def server(request, large_file):
    arguments = "plain", "--threads", request.param
    with serving(*arguments, env={"FILE": str(large_file)}) as server:
        yield server


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "upload"
    path.write_bytes(UPLOAD)
    return path


def curl(*arguments, input=b""):
    """Run curl; returns what it wrote to stdout and stderr."""
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "20", *arguments],
        input=input,
        capture_output=True,
        timeout=PATIENCE + 10,
        check=True,
    )
    return done.stdout, done.stderr.decode("latin-1")


# curl


def test_curl_reuses_its_connection(server):
    urls = [f"{server.url}/echo"] * 5
    out, _ = curl("--write-out", "%{num_connects} ", "--data", "a", *urls)
    assert out == b"a1 " + b"a0 " * 4


def test_curl_http_10(server):
    out, log = curl("--http1.0", "--verbose", f"{server.url}/blocks?3")
    assert out == BLOCK * 3
    assert "Transfer-Encoding" not in log


def test_curl_head(server):
    out, _ = curl("--head", f"{server.url}/sized?3", f"{server.url}/")
    assert out.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b"Content-Length: %d\r\n" % (3 * len(BLOCK)) in out
    assert b"Content-Length: 14\r\n" in out


def test_curl_expects_100_continue(server, upload):
    expect = "--header", "Expect: 100-continue"
    out, log = curl(
        "--verbose", *expect, "--upload-file", upload, f"{server.url}/count"
    )
    assert "< HTTP/1.1 100 Continue" in log
    assert json.loads(out) == described(UPLOAD) | {"method": "PUT"}


def test_curl_chunked_upload(server):
    out, log = curl(
        "--verbose", "--upload-file", "-", f"{server.url}/count", input=UPLOAD
    )
    assert "> Transfer-Encoding: chunked" in log
    assert json.loads(out) == described(UPLOAD) | {"method": "PUT"}


def test_curl_downloads(server, tmp_path):
    for path in ("/blocks?300", "/sized?300"):
        curl("--output", tmp_path / "got", server.url + path)
        assert (tmp_path / "got").read_bytes() == BLOCK * 300
    curl("--output", tmp_path / "got", f"{server.url}/file")
    assert (tmp_path / "got").read_bytes() == BLOCK * COUNT


# http.client


@pytest.fixture
def connection(server):
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=PATIENCE
    )
    yield connection
    connection.close()


def ask(connection, method, path, **options):
    connection.request(method, path, **options)
    response = connection.getresponse()
    return response, response.read()


def test_http_client_reuses_its_connection(connection):
    ask(connection, "GET", "/")
    first = connection.sock
    for body in (b"a", b"", b"b" * 100_000):
        assert ask(connection, "POST", "/echo", body=body)[1] == body
        response, got = ask(connection, "HEAD", "/sized?5")
        assert got == b""
        assert response.headers["Content-Length"] == str(5 * len(BLOCK))
        assert ask(connection, "GET", "/blocks?5")[1] == BLOCK * 5
    assert connection.sock is first


def test_http_client_uploads(connection):
    """With a length, and in chunks, from a file and from a generator."""
    bodies = [
        (lambda: UPLOAD, False),
        (lambda: io.BytesIO(UPLOAD), True),
        (lambda: in_parts(UPLOAD), True),
        (lambda: in_parts(UPLOAD[:5000], 1), True),
        (lambda: iter([]), True),
    ]
    for make, chunked in bodies:
        expected = make()
        if not isinstance(expected, bytes):
            expected = b"".join(expected)
        _, got = ask(
            connection, "POST", "/count", body=make(), encode_chunked=chunked
        )
        assert json.loads(got) == described(expected) | {"method": "POST"}


# requests and httpx


def test_requests_reuses_its_connection(server):
    with requests.Session() as session:
        ports = {
            session.get(f"{server.url}/port", timeout=PATIENCE).text
            for _ in range(10)
        }
    assert len(ports) == 1


def test_requests_streams_both_ways(server):
    with requests.Session() as session:
        got = session.post(
            f"{server.url}/count", data=in_parts(UPLOAD), timeout=PATIENCE
        )
        assert got.json() == described(UPLOAD) | {"method": "POST"}
        with session.get(
            f"{server.url}/blocks?300", stream=True, timeout=PATIENCE
        ) as response:
            assert b"".join(response.iter_content(99_999)) == BLOCK * 300
        assert session.head(f"{server.url}/blocks?9").content == b""


def test_httpx_streams_both_ways(server):
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        got = client.post("/count", content=in_parts(UPLOAD))
        assert got.json() == described(UPLOAD) | {"method": "POST"}
        assert len({client.get("/port").text for _ in range(10)}) == 1
        with client.stream("GET", "/sized?300") as response:
            assert b"".join(response.iter_bytes()) == BLOCK * 300
        with client.stream("GET", "/file") as response:
            assert b"".join(response.iter_bytes()) == BLOCK * COUNT
        assert client.head("/sized?9").content == b""


def test_httpx_from_many_threads(server):
    bodies = [b"%d" % number for number in range(160)]
    with (
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
        futures.ThreadPoolExecutor(8) as pool,
    ):
        got = pool.map(lambda body: client.post("/echo", content=body), bodies)
        assert [each.content for each in got] == bodies


# Raw sockets


def test_pipelined_requests(server):
    """All answered, in order, though sent before the first answer."""
    with Connection(("127.0.0.1", server.port)) as client:
        head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: "
        bodies = [b"%d" % number for number in range(200)]
        client.send(
            b"".join(
                f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies
            )
        )
        assert [client.response().body for _ in bodies] == bodies


def test_pipelined_requests_of_all_kinds(server):
    kinds = [
        (b"GET / HTTP/1.1\r\n", b"", b"Hello, World!\n"),
        (b"GET /blocks?7 HTTP/1.1\r\n", b"", BLOCK * 7),
        (b"HEAD /sized?7 HTTP/1.1\r\n", b"", b""),
        (b"GET /file HTTP/1.1\r\n", b"", BLOCK * COUNT),
        (
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
            b"2\r\nbo\r\n2;a=b\r\ndy\r\n0\r\nTrailer: x\r\n\r\n",
            b"body",
        ),
    ] * 2
    with Connection(("127.0.0.1", server.port)) as client:
        for line, body, _ in kinds:
            client.send(line + b"Host: x\r\n\r\n" + body)
        for line, _, expected in kinds:
            method = line.split()[0].decode()
            assert client.response(method).body == expected


def test_an_upload_byte_by_byte(server):
    with Connection(("127.0.0.1", server.port)) as client:
        whole = (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked"
            b"\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
        )
        for byte in whole:
            client.send(bytes([byte]))
        assert [client.response().body for _ in range(2)] == [b"body"] * 2


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_closes_its_side_first(server, version):
    """A half-closed connection is answered (`nc` does this)."""
    with Connection(("127.0.0.1", server.port)) as client:
        client.send(f"GET /blocks?20 HTTP/{version}\r\n".encode())
        client.send(b"Host: x\r\n\r\n")
        client.socket.shutdown(1)
        assert client.response().body == BLOCK * 20
        assert client.at_end()


# Memory


@pytest.mark.parametrize("threads", ["0", "2"], ids=["loop", "pool"])
def test_memory_stays_flat(threads):
    """100 MB up, 100 MB down to a slow reader: a few MB in the server."""
    length = f"Content-Length: {1600 * len(BLOCK)}"
    with (
        serving("plain", "--threads", threads) as server,
        Connection(("127.0.0.1", server.port), receive_buffer=65536) as client,
    ):
        before = int(client.get("/peak").body)
        client.request("/count", length, method="POST")
        for _ in range(1600):
            client.send(BLOCK)
        got = json.loads(client.response().body)
        assert got["size"] == 1600 * len(BLOCK)
        for path in ("/blocks?1600", "/write?500"):
            client.request(path).head()
            while block := client.chunk():
                assert block == BLOCK
        assert int(client.get("/peak").body) - before < 12 << 10


# Load


def python_load(url):
    """What wrk does, where there is none."""

    def run(number):
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        with contextlib.closing(connection):
            return {ask(connection, "GET", "/")[1] for _ in range(150)}

    with futures.ThreadPoolExecutor(8) as pool:
        for bodies in pool.map(run, range(8)):
            assert bodies == {b"Hello, World!\n"}


def wrk(url):
    done = subprocess.run(
        ["wrk", "--connections", "64", "--duration", "1", url],
        capture_output=True,
        timeout=PATIENCE + 10,
        check=True,
        text=True,
    )
    assert "Socket errors" not in done.stdout
    assert "Non-2xx" not in done.stdout
    assert int(re.search(r"(\d+) requests in", done.stdout)[1]) > 100


@pytest.mark.parametrize(
    "load", [python_load, *([wrk] if shutil.which("wrk") else [])]
)
def test_load(server, load):
    load(server.url)
    assert curl(server.url)[0] == b"Hello, World!\n"
