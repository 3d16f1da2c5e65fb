"""Flask and Django behind the real command, asked by `httpx`."""

import gzip
import re
from urllib.parse import unquote

import httpx
import pytest

from tests.apps.bodies import BLOCK, described, in_parts
from tests.apps.serving import serving

STYLE = b"body { color: black }\n" * 5000
APPS = {"flask": "flask_site", "django": "django_site.wsgi"}

of_flask = pytest.mark.parametrize("server", ["flask"], indirect=True)
of_django = pytest.mark.parametrize("server", ["django"], indirect=True)


@pytest.fixture(scope="module", params=["0", "2"], ids=["loop", "pool"])
def threads(request):
    return request.param


@pytest.fixture(scope="module", params=APPS)
def server(request, threads, tmp_path_factory):
    files = tmp_path_factory.mktemp("files")
    (files / "style.css").write_bytes(STYLE)
    (files / "large.bin").write_bytes(BLOCK * 300)
    sessions = tmp_path_factory.mktemp("sessions")
    env = {"FILES": str(files), "SESSIONS": str(sessions)}
    with serving(APPS[request.param], "--threads", threads, env=env) as server:
        yield server


@pytest.fixture
def client(server):
    # Else it reads the certificates of all authorities, for 0.1 s.
    with httpx.Client(
        base_url=server.url, follow_redirects=True, timeout=20, verify=False
    ) as client:
        yield client


def test_page(client):
    got = client.get("/")
    assert (got.status_code, got.text) == (200, "<h1>It works</h1>")
    assert got.headers["Content-Type"] == "text/html; charset=utf-8"
    assert got.headers["Content-Length"] == str(len(got.content))


def test_form(client):
    fields = {"name": ["Zoë"], "many": ["1", "2"], "empty": [""]}
    got = client.post("/upload", data=fields)
    assert got.json() == {"form": fields, "files": []}


def test_json(client):
    value = {"text": "Zoë \U0001f600", "list": [1, None, {"a": True}]}
    assert client.post("/json", json=value).json() == {"got": value}


def test_upload_of_50_mb(client):
    body = BLOCK * 800
    small = b"small\r\n--file"
    files = [
        ("file", ("large.bin", body)),
        ("file", ("Zoë.txt", small, "text/plain")),
    ]
    got = client.post("/upload", files=files, data={"title": "two files"})
    assert got.json() == {
        "form": {"title": ["two files"]},
        "files": [
            {"field": "file", "name": "large.bin", **described(body)},
            {"field": "file", "name": "Zoë.txt", **described(small)},
        ],
    }


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
def test_chunked_upload_arrives_whole(client, size):
    body = (BLOCK * 80)[:size]
    got = client.put("/raw", content=in_parts(body))
    assert got.request.headers["Transfer-Encoding"] == "chunked"
    assert got.json() == described(body) | {"length": size}


def test_chunked_form_arrives_whole(client):
    got = client.post(
        "/upload",
        content=in_parts(b"name=value&other=1", 1),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert got.request.headers["Transfer-Encoding"] == "chunked"
    fields = {"name": ["value"], "other": ["1"]}
    assert got.json() == {"form": fields, "files": []}


def test_streaming_response(client):
    got = client.get("/stream/3000")
    assert got.headers["Transfer-Encoding"] == "chunked"
    lines = got.text.splitlines()
    assert lines == [f"/stream/3000 {number}" for number in range(3000)]


def test_download(client):
    for _ in range(2):
        got = client.get("/download/large.bin")
        assert got.content == BLOCK * 300
        assert got.headers["Content-Length"] == str(len(BLOCK) * 300)
        assert "attachment" in got.headers["Content-Disposition"]
        head = client.head("/download/large.bin")
        assert head.headers.keys() == got.headers.keys()
        assert head.headers["Content-Length"] == str(len(BLOCK) * 300)
    assert client.get("/download/other.bin").status_code == 404
    assert client.get("/download/..%2fsecret").status_code == 404


def test_session_and_redirects(client):
    assert client.get("/account").url.path == "/"
    got = client.post("/login", data={"user": "Zoë"})
    assert [each.status_code for each in got.history] == [302]
    assert got.json() == {"user": "Zoë", "visits": 1}
    for visits in (2, 3):
        assert client.get("/account").json()["visits"] == visits
    gone = client.post("/logout")
    assert (gone.status_code, gone.content) == (204, b"")
    away = client.get("/account", follow_redirects=False)
    assert (away.status_code, away.headers["Location"]) == (302, "/")


def test_every_header_of_the_application_arrives(client):
    got = client.post("/login", data={"user": "a"}, follow_redirects=False)
    assert re.match("session.*=.+; HttpOnly", got.headers["Set-Cookie"])
    assert got.headers["Location"] == "/account"
    assert got.headers["Vary"] == "Cookie"


def test_urls(server, client):
    got = client.get("/url/Zo%C3%AB/a%20b%2Fc?a=1&a=%C3%BC%26").json()
    assert unquote(got.pop("url")) == (f"{server.url}/url/Zoë/a b/c?a=1&a=ü&")
    assert got == {
        "name": "Zoë/a b/c",
        "args": {"a": ["1", "ü&"]},
        "remote": "127.0.0.1",
    }


def test_error_pages(server, client):
    got = client.get("/no/such")
    assert (got.status_code, got.text) == (404, "<h1>No /no/such here</h1>")
    got = client.get("/broken")
    assert got.status_code == 500
    assert "on purpose" not in got.text
    server.wait_for_line("RuntimeError: broken on purpose")
    assert client.get("/").status_code == 200


def test_a_stream_that_breaks(client):
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/broken-stream")
    assert client.get("/").status_code == 200


@of_flask
def test_static_file(client):
    got = client.get("/static/style.css")
    assert got.content == STYLE
    assert got.headers["Content-Type"].startswith("text/css")
    assert got.headers["Content-Length"] == str(len(STYLE))
    tag = {"If-None-Match": got.headers["ETag"]}
    same = client.get("/static/style.css", headers=tag)
    assert (same.status_code, same.content) == (304, b"")
    part = client.get("/static/style.css", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, STYLE[5:10])
    head = client.head("/static/style.css")
    assert head.headers["Content-Length"] == str(len(STYLE))


@of_django
def test_a_token_against_forgery(client):
    page = client.get("/form").text
    token = re.search('name="csrfmiddlewaretoken" value="(.+?)"', page)[1]
    fields = {"name": "Zoë", "age": "-1", "csrfmiddlewaretoken": token}
    assert 'class="errorlist"' in client.post("/form", data=fields).text
    got = client.post("/form", data=fields | {"age": "30"})
    assert [each.status_code for each in got.history] == [302]
    assert got.json() == {"messages": ["saved Zoë"]}
    assert client.get("/messages").json() == {"messages": []}
    del fields["csrfmiddlewaretoken"]
    assert client.post("/form", data=fields).status_code == 403


@of_django
def test_a_host_that_is_not_allowed(client):
    got = client.get("/", headers={"Host": "elsewhere.example"})
    assert got.status_code == 400


@of_django
def test_compressed_response(client):
    got = client.get("/compressed", headers={"Accept-Encoding": "gzip"})
    assert got.headers["Content-Encoding"] == "gzip"
    assert int(got.headers["Content-Length"]) == got.num_bytes_downloaded
    assert got.text == "word " * 10_000
    with client.stream("GET", "/compressed") as raw:
        assert gzip.decompress(b"".join(raw.iter_raw())) == got.content
