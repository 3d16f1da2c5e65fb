"""A Flask application behind the real command, asked by `requests`."""

import re

import pytest
import requests

from tests.apps.bodies import BLOCK, described, in_parts
from tests.apps.serving import serving
from tests.apps.wire import Connection

STYLE = b"body { color: black }\n" * 5000


@pytest.fixture(scope="module", params=["0", "2"], ids=["loop", "pool"])
def server(request, tmp_path_factory):
    files = tmp_path_factory.mktemp("files")
    (files / "style.css").write_bytes(STYLE)
    (files / "large.bin").write_bytes(BLOCK * 300)
    arguments = "flask_site", "--threads", request.param
    with serving(*arguments, env={"FILES": str(files)}) as server:
        yield server


@pytest.fixture
def client(server):
    class Client(requests.Session):
        def request(self, method, path, **options):
            options = {"timeout": 20} | options
            return super().request(method, server.url + path, **options)

    with Client() as client:
        yield client


def test_page(client):
    got = client.get("/")
    assert (got.status_code, got.text) == (200, "<h1>It works</h1>")
    assert got.headers["Content-Type"] == "text/html; charset=utf-8"
    assert got.headers["Content-Length"] == str(len(got.content))


def test_form(client):
    fields = {"name": ["Zoë"], "many": ["1", "2"], "empty": [""]}
    assert client.post("/form", data=fields).json() == fields


def test_json(client):
    value = {"text": "Zoë \U0001f600", "list": [1, None, {"a": True}]}
    assert client.post("/json", json=value).json() == {"got": value}
    bad = client.post(
        "/json", data=b"{", headers={"Content-Type": "application/json"}
    )
    assert bad.status_code == 400


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
    got = client.put("/raw", data=in_parts(body))
    assert got.request.headers["Transfer-Encoding"] == "chunked"
    assert got.json() == described(body) | {"length": size}


def test_chunked_form_arrives_whole(server):
    with Connection(("127.0.0.1", server.port)) as client:
        fields = (
            "Transfer-Encoding: chunked",
            "Content-Type: application/x-www-form-urlencoded",
        )
        client.request("/form", *fields, method="POST")
        for byte in b"name=value&other=1":
            client.send(b"1\r\n%c\r\n" % byte)
        client.send(b"0\r\n\r\n")
        assert client.response().body.split() == (
            b'{"name":["value"],"other":["1"]}'.split()
        )


def test_streaming_response(client):
    got = client.get("/stream/3000")
    assert got.headers["Transfer-Encoding"] == "chunked"
    lines = got.text.splitlines()
    assert lines == [f"/stream/3000 {number}" for number in range(3000)]


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
    assert client.get("/").status_code == 200


def test_download(client):
    got = client.get("/download/large.bin")
    assert got.content == BLOCK * 300
    assert "attachment" in got.headers["Content-Disposition"]
    assert client.get("/download/..%2fsecret").status_code == 404


def test_session_and_redirects(client):
    assert client.get("/account").url == client.get("/").url
    got = client.post("/login", data={"user": "Zoë"})
    assert [each.status_code for each in got.history] == [303]
    assert got.json() == {"user": "Zoë", "visits": 1}
    for visits in (2, 3):
        assert client.get("/account").json()["visits"] == visits
    gone = client.post("/logout")
    assert (gone.status_code, gone.content) == (204, b"")
    away = client.get("/account", allow_redirects=False)
    assert (away.status_code, away.headers["Location"]) == (302, "/")


def test_urls(server, client):
    got = client.get("/url/Zo%C3%AB/a%20b%2Fc", params={"a": ["1", "ü&"]})
    assert got.json() == {
        "name": "Zoë/a b/c",
        "args": {"a": ["1", "ü&"]},
        "url": f"{server.url}/url/Zoë/a%20b/c?a=1&a=ü%26",
        "remote": "127.0.0.1",
    }


def test_error_pages(server, client):
    got = client.get("/no/such")
    assert (got.status_code, got.text) == (404, "<h1>No /no/such here</h1>")
    assert client.get("/form").status_code == 405
    got = client.get("/broken")
    assert got.status_code == 500
    assert "Internal Server Error" in got.text
    assert "on purpose" not in got.text
    server.wait_for_line("RuntimeError: broken on purpose")
    assert client.get("/").status_code == 200


def test_a_stream_that_breaks(server, client):
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.get("/broken-stream")
    assert client.get("/").status_code == 200


def test_every_header_of_the_application_arrives(client):
    got = client.post("/login", data={"user": "a"}, allow_redirects=False)
    assert re.match("session=.+; HttpOnly; Path=/", got.headers["Set-Cookie"])
    assert got.headers["Location"] == "/account"
    assert got.headers["Vary"] == "Cookie"
