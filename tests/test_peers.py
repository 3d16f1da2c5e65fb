"""Proxies in front of the real command, and clients of other languages.

What HTTP/1.1 gives a proxy that keeps connections: as long as it gives up
an idle connection before the server does, nothing is ever lost. Where the
server is the first (RFC 9112 section 9.5), its close may cross with a
request. The server has not read a byte of that, so a proxy may repeat it
if its method is idempotent (section 9.3.1), and the client sees nothing.
A POST that crosses with the close cannot be repeated and cannot be had:
no server can prevent that by itself, so its --keep-alive, 75 seconds, is
longer than the idle time of the common proxies (nginx keeps 60).
"""

import asyncio
import contextlib
import io
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import httpx
import pytest

from tests.apps.bodies import BLOCK, described, in_parts
from tests.apps.serving import serving
from tests.apps.wire import PATIENCE, Connection
from tests.peers.load import CLIENTS, PORT, Kind, play, play_with_gaps
from tests.peers.proxies import HERE, PROXIES, proxied, tool

APP = "tests.peers.places:app"
TOO_LONG = 11_000_000
LIMITS = [
    *("--limit-request-line", "4000"),
    *("--limit-request-field-size", "4000"),
    *("--limit-request-body", str(TOO_LONG - 1)),
]
REQUESTS = 2000
SIZE = 10_000_000
UPLOAD = b"0123456789" * (SIZE // 10)
FRONTS = {
    "nginx-loop": ("nginx", True, "0"),
    "nginx-streaming-pool": ("nginx", False, "2"),
    "haproxy-loop": ("haproxy", False, "0"),
}


# Proxies


@pytest.fixture(scope="module", params=FRONTS.values(), ids=FRONTS)
def behind(request):
    """A server, and what shall stand in front of it."""
    name, buffering, threads = request.param
    with serving(APP, "--threads", threads, *LIMITS) as server:
        yield server, name, buffering
        assert "Traceback" not in server.stderr


@pytest.fixture
def front(behind, tmp_path):
    """A proxy that repeats nothing, so that no failure is hidden.

    Each test has its own, with no connection that another one has left.
    """
    server, name, buffering = behind
    with proxied(name, server.port, tmp_path, buffering=buffering) as front:
        yield front
        assert front.complaints() == []


@pytest.fixture
def client(front):
    with Connection(front.address) as client:
        yield client


def ports(front, count):
    """The ports that the server sees of `count` new clients."""
    found = set()
    for _ in range(count):
        with Connection(front.address) as client:
            response = client.get("/port", "Connection: close")
            assert response.status == 200
            found.add(response.body)
    return found


def chunks(body):
    for part in in_parts(body):
        yield b"%x\r\n%b\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


def test_a_proxy_keeps_its_connection(front):
    assert len(ports(front, 50)) == 1


@pytest.mark.parametrize(
    "kind",
    [
        Kind("HEAD /sized?9"),
        Kind("HEAD /blocks?9"),
        Kind("GET /status?204", status=204),
        Kind("GET /status?304", status=304),
        Kind("GET /blocks?9", body=BLOCK * 9),
        Kind("POST /status?403\nContent-Length: 3", b"abc", 403, b"403"),
    ],
    ids=lambda kind: kind.head.splitlines()[0],
)
def test_a_proxy_keeps_its_connection_after(front, client, kind):
    """The end of each response is where the proxy looks for it."""
    before = ports(front, 1)
    response = client.send(kind.wire).response(kind.method)
    assert (response.status, response.body) == (kind.status, kind.body)
    assert ports(front, 1) == before


def test_a_length_survives_head(client):
    response = client.get("/sized?9", method="HEAD")
    assert response.headers["Content-Length"] == str(9 * len(BLOCK))
    assert client.get("/").body == b"Hello, World!\n"


def test_a_large_upload(client):
    response = client.get("/count", method="POST", body=UPLOAD)
    assert json.loads(response.body).items() >= described(UPLOAD).items()


def test_a_large_upload_in_chunks(client):
    client.request("/count", "Transfer-Encoding: chunked", method="POST")
    for chunk in chunks(UPLOAD):
        client.send(chunk)
    got = json.loads(client.response().body)
    assert got.items() >= described(UPLOAD).items()


@pytest.mark.parametrize("place", ["blocks", "sized"])
def test_a_large_download(client, place):
    response = client.get(f"/{place}?160")
    assert response.body == BLOCK * 160
    expected = {"blocks": "chunked", "sized": "length"}
    assert response.framing == expected[place]


def test_pipelined_requests(client):
    bodies = [b"%d" % number for number in range(50)]
    for body in bodies:
        client.request("/echo", method="POST", body=body)
    assert [client.response().body for _ in bodies] == bodies


def test_expect_100_continue(client):
    expect = f"Content-Length: {SIZE}", "Expect: 100-continue"
    client.request("/count", *expect, method="PUT")
    assert client.head()[0] == 100
    got = json.loads(client.send(UPLOAD).response().body)
    assert got.items() >= described(UPLOAD).items()


def test_an_old_client(front):
    with Connection(front.address) as client:
        client.send(b"GET /blocks?20 HTTP/1.0\r\n\r\n")
        response = client.response()
        assert (response.status, response.framing) == (200, "close")
        assert response.body == BLOCK * 20


def test_a_slow_upload_holds_nobody_up(front, client):
    client.request("/count", f"Content-Length: {SIZE}", method="PUT")
    for part in in_parts(UPLOAD, SIZE // 4):
        client.send(part)
        assert len(ports(front, 3)) <= 2
    got = json.loads(client.response().body)
    assert got.items() >= described(UPLOAD).items()


def test_a_slow_download_holds_nobody_up(front):
    with Connection(front.address, receive_buffer=4096) as client:
        client.request("/sized?160")
        assert client.head()[0] == 200
        for _ in range(16):
            assert client.exactly(10 * len(BLOCK)) == BLOCK * 10
            assert len(ports(front, 3)) <= 2


BAD = {
    "long target": (414, "GET /" + "a" * 4000, b""),
    "long field": (431, "GET /\nA: " + "a" * 4000, b""),
    "long body": (
        413,
        f"PUT /echo\nContent-Length: {TOO_LONG}",
        bytes(TOO_LONG),
    ),
    "no token": (400, "GET /\nBad@Name: a", b""),
    "no version": (400, "GET / HTTP/1.1 a", b""),
    "no length": (400, "PUT /echo\nContent-Length: x", b""),
    "no chunk": (400, "PUT /echo\nTransfer-Encoding: chunked", b"x\r\n\r\n"),
    "unknown coding": ((400, 501), "PUT /echo\nTransfer-Encoding: a", b""),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_the_clients_fault(front, client, case):
    """Refused by the proxy or by fasthttp behind it: never a 502."""
    status, head, body = BAD[case]
    client.send(Kind(head, body).wire)
    response = client.response()
    assert response.status in (status if type(status) is tuple else [status])
    assert len(ports(front, 2)) == 1


def test_no_request_fails(front):
    played = play(front.address, REQUESTS)
    assert played.wrong == []
    # nginx uses a connection for 1,000 requests.
    assert 1 <= len(played.ports) <= CLIENTS + REQUESTS // 1000


def play_through_all(server, place, gaps, kinds, **options):
    """Play through each proxy at the same time; nothing may be lost."""
    with contextlib.ExitStack() as stack:
        fronts = [
            stack.enter_context(
                proxied(name, server.port, place / name, **options)
            )
            for name in PROXIES
        ]
        pool = stack.enter_context(ThreadPoolExecutor(len(fronts)))
        runs = [
            pool.submit(play_with_gaps, front.address, gaps, kinds)
            for front in fronts
        ]
        for run in runs:
            played = run.result()
            assert played.wrong == []
            assert len(played.ports) > CLIENTS
        return [line for front in fronts for line in front.complaints()]


def test_a_proxy_that_is_idle_first_loses_nothing(tmp_path):
    """Not even a POST, and though it repeats nothing."""
    kinds = [PORT, Kind("POST /echo\nContent-Length: 1", b"a", body=b"a")]
    gaps = [0.045, 0.049, 0.05, 0.051, 0.055, 0.2] * 2
    with serving(APP) as server:
        assert play_through_all(server, tmp_path, gaps, kinds, idle=50) == []


def test_a_server_that_is_idle_first_loses_nothing(tmp_path):
    """As long as the proxy repeats what may be repeated.

    The server looks at its deadlines every quarter of a second.
    """
    gaps = [0.245, 0.249, 0.25, 0.251, 0.252, 0.5]
    with serving(APP, "--keep-alive", "0.25") as server:
        play_through_all(server, tmp_path, gaps, [PORT], retry=True)


# Clients


@pytest.fixture(scope="module", params=["0", "2"], ids=["loop", "pool"])
def server(request):
    with serving(APP, "--threads", request.param, *LIMITS) as server:
        yield server


async def in_async_parts(body):
    for part in in_parts(body):
        yield part


def test_aiohttp(server):
    async def run():
        timeout = aiohttp.ClientTimeout(PATIENCE)
        async with aiohttp.ClientSession(
            server.url,
            connector=aiohttp.TCPConnector(limit=4),
            timeout=timeout,
        ) as session:

            async def ask(method, path, **options):
                async with session.request(method, path, **options) as got:
                    return got.status, got.headers, await got.read()

            seen = {(await ask("GET", "/port"))[2] for _ in range(10)}
            assert len(seen) == 1
            for options in (
                {"data": io.BytesIO(UPLOAD)},
                {"data": in_async_parts(UPLOAD)},
                {"data": io.BytesIO(UPLOAD), "expect100": True},
            ):
                _, _, got = await ask("POST", "/count", **options)
                assert json.loads(got).items() >= described(UPLOAD).items()
            too_long = io.BytesIO(bytes(TOO_LONG))
            assert (await ask("POST", "/count", data=too_long))[0] == 413
            seen = {(await ask("GET", "/port"))[2]}
            _, headers, got = await ask("HEAD", "/sized?9")
            assert headers["Content-Length"] == str(9 * len(BLOCK))
            assert got == b""
            assert (await ask("GET", "/blocks?160"))[2] == BLOCK * 160
            for number in (204, 304):
                path = f"/status?{number}"
                assert (await ask("GET", path))[0] == number
            assert {(await ask("GET", "/port"))[2]} == seen
            echoes = [
                ask("POST", "/echo", data=b"%d" % number)
                for number in range(200)
            ]
            got = [body for _, _, body in await asyncio.gather(*echoes)]
            assert got == [b"%d" % number for number in range(200)]

    asyncio.run(run())


def test_httpx_async(server, monkeypatch):
    # Else it is looked for in all of sys.path, for each part of a body.
    monkeypatch.setitem(sys.modules, "sniffio", None)

    async def run():
        async with httpx.AsyncClient(
            base_url=server.url,
            limits=httpx.Limits(max_connections=4),
            timeout=PATIENCE,
        ) as client:
            seen = {(await client.get("/port")).text for _ in range(10)}
            assert len(seen) == 1
            for content in (UPLOAD, in_async_parts(UPLOAD)):
                got = await client.post("/count", content=content)
                assert got.json().items() >= described(UPLOAD).items()
            got = await client.post("/count", content=bytes(TOO_LONG))
            assert got.status_code == 413
            seen = {(await client.get("/port")).text}
            got = await client.head("/sized?9")
            assert got.headers["Content-Length"] == str(9 * len(BLOCK))
            assert got.content == b""
            assert (await client.get("/blocks?160")).content == BLOCK * 160
            for number in (204, 304):
                got = await client.get(f"/status?{number}")
                assert got.status_code == number
            assert {(await client.get("/port")).text} == seen
            echoes = [
                client.post("/echo", content=b"%d" % number)
                for number in range(200)
            ]
            got = [each.content for each in await asyncio.gather(*echoes)]
            assert got == [b"%d" % number for number in range(200)]

    asyncio.run(run())


@pytest.fixture(scope="module")
def go_client(tmp_path_factory):
    """The client in Go, compiled."""
    built = tmp_path_factory.mktemp("go") / "client"
    compiler = ["go", "build"] if shutil.which("go") else [tool("gccgo")]
    subprocess.run(
        [*compiler, "-o", built, HERE / "client.go"],
        cwd=built.parent,
        timeout=PATIENCE,
        check=True,
    )
    return built


def node_command(request):
    return [tool("node"), HERE / "client.mjs"]


def go_command(request):
    return [request.getfixturevalue("go_client")]


@pytest.mark.parametrize("command", [node_command, go_command])
def test_another_language(server, request, command):
    """Node's and Go's own clients: the same requests, one verdict."""
    done = subprocess.run(
        [*command(request), server.url, str(SIZE), str(TOO_LONG)],
        capture_output=True,
        timeout=PATIENCE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert len(set(seen["ports"])) == 1
    for name in ("sized", "chunked", "expected"):
        got = json.loads(seen[name]["text"])
        assert got.items() >= described(UPLOAD).items()
        assert seen[name]["continued"] is (name == "expected")
        assert seen[name]["reused"]
    for name in ("refused", "unwanted"):
        assert (seen[name]["status"], seen[name]["continued"]) == (413, False)
    fields = {
        name.lower(): "".join(value)
        for name, value in seen["head"]["headers"].items()
    }
    assert fields["content-length"] == str(9 * len(BLOCK))
    assert seen["head"]["size"] == 0
    assert seen["blocks"].items() >= described(BLOCK * 160).items()
    assert seen["bare"] == [204, 304]
    assert seen["echoes"] == [str(number) for number in range(200)]
    assert seen["port"]
