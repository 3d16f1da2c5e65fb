"""Micro-benchmarks: the parser and serializer beside others, on equal bytes.

Run `python -m pytest bench/test_micro.py` with pytest-benchmark, httptools,
gunicorn_h1c, llhttp and h11 installed; a missing one is an error.
"""

import ctypes
import subprocess
from pathlib import Path

import cases
import gunicorn_h1c
import h11
import httptools
import llhttp
import pytest

from fasthttp._fields import KNOWN_NAMES
from fasthttp._parser import VECTORS

H11_FIELDS = [
    *((name, value) for name, value in cases.ANSWER_FIELDS),
    ("Content-Length", "5"),
]


class HttptoolsRequest:
    """Collects what httptools calls back."""

    def on_message_begin(self):
        self.headers = []
        self.body = []

    def on_url(self, url):
        self.url = url

    def on_header(self, name, value):
        self.headers.append((name, value))

    def on_body(self, data):
        self.body.append(data)


class LlhttpRequest(llhttp.Request):
    """Collects what llhttp calls back."""

    def on_message_begin(self):
        self.headers = []
        self.body = []

    def on_url(self, url):
        self.url = bytes(url)

    def on_header_field(self, name):
        self.name = bytes(name)

    def on_header_value(self, value):
        self.headers.append((self.name, bytes(value)))

    def on_body(self, data):
        self.body.append(bytes(data))


def with_httptools(heads):
    request = HttptoolsRequest()
    parser = httptools.HttpRequestParser(request)

    def run():
        for head in heads:
            parser.feed_data(head)
            found = parser.get_method(), request.url, request.headers
        return found

    return run


def with_llhttp(heads):
    parser = LlhttpRequest()

    def run():
        for head in heads:
            parser.execute(head)
            found = parser.method, parser.url, parser.headers
        return found

    return run


def with_h1c(heads):
    def run():
        for head in heads:
            request = gunicorn_h1c.parse_request(head)
        return request["method"], request["path"], request["headers"]

    return run


def with_h1c_lazily(heads):
    def run():
        for head in heads:
            request = gunicorn_h1c.parse_request_fast(head)
        return request.method, request.path, request.headers

    return run


def with_h11(heads):
    def run():
        for head in heads:
            connection = h11.Connection(h11.SERVER)
            connection.receive_data(head)
            request = connection.next_event()
        return request.method, request.target, list(request.headers)

    return run


OBJECTS = {
    "fasthttp": cases.objects,
    "gunicorn_h1c": with_h1c,
    "gunicorn_h1c-lazy": with_h1c_lazily,
    "httptools": with_httptools,
    "llhttp": with_llhttp,
    "h11": with_h11,
}


def lowered(found):
    """Method, target and fields in one form for all parsers."""

    def text(value):
        return value if isinstance(value, str) else value.decode("latin-1")

    method, target, fields = found
    return (
        text(method),
        text(target),
        [(text(name).lower(), text(value)) for name, value in fields],
    )


@pytest.mark.parametrize("batch", cases.BATCHES)
@pytest.mark.parametrize("parser", OBJECTS)
def test_objects(benchmark, parser, batch):
    benchmark.group = f"{cases.HEADS} heads to objects: {batch}"
    heads = cases.BATCHES[batch]
    found = benchmark(OBJECTS[parser](heads))
    assert lowered(found) == lowered(cases.objects(heads[-1:])())


def environ_by_h1c(heads):
    here, there = ("127.0.0.1", 8000), ("127.0.0.1", 50000)

    def run():
        for head in heads:
            environ = gunicorn_h1c.parse_to_wsgi_environ(head, here, there)
        return environ

    return run


ENVIRON = {
    "fasthttp": cases.environ,
    "fasthttp-and-answer": cases.answer,
    "gunicorn_h1c": environ_by_h1c,
}


@pytest.mark.parametrize("batch", cases.BATCHES)
@pytest.mark.parametrize("maker", ENVIRON)
def test_environ(benchmark, maker, batch):
    benchmark.group = f"{cases.HEADS} heads to environ: {batch}"
    heads = cases.BATCHES[batch]
    environ = benchmark(ENVIRON[maker](heads))
    ours = cases.environ(heads[-1:])()
    for key in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_HOST"):
        assert environ[key] == ours[key]


@pytest.mark.parametrize("batch", cases.BATCHES)
def test_scan(benchmark, batch):
    benchmark.group = f"{cases.HEADS} heads, no fields made: {batch}"
    heads = cases.BATCHES[batch]
    benchmark.extra_info["bytes"] = sum(map(len, heads))
    assert benchmark(cases.scan(heads)).method == "GET"


@pytest.fixture(scope="module")
def scanner(tmp_path_factory):
    """bench/scan.c, compiled with the flags of the modules."""
    library = tmp_path_factory.mktemp("scan") / "scan.so"
    source = Path(__file__).with_name("scan.c")
    compiler = ["cc", "-O3", "-shared", "-fPIC", "-o", library, source]
    subprocess.run(compiler, check=True)
    scanner = ctypes.CDLL(library)
    scanner.scan.argtypes = ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
    for known, name in enumerate(KNOWN_NAMES):
        assert scanner.add_name(known, name.encode())
    return scanner


@pytest.mark.parametrize("batch", cases.BATCHES)
@pytest.mark.parametrize("form", VECTORS)
def test_scan_alone(benchmark, scanner, form, batch):
    benchmark.group = f"{cases.HEADS} heads, scanned only: {batch}"
    heads = b"".join(cases.BATCHES[batch])
    benchmark.extra_info["bytes"] = len(heads)
    fields = heads.count(b"\r\n") - 2 * cases.HEADS
    arguments = VECTORS.index(form), heads, len(heads)
    assert benchmark(scanner.scan, *arguments) == fields


def chunks_by_httptools():
    request = HttptoolsRequest()
    parser = httptools.HttpRequestParser(request)

    def run():
        parser.feed_data(cases.CHUNKED)
        return b"".join(request.body)

    return run


def chunks_by_llhttp():
    parser = LlhttpRequest()

    def run():
        parser.execute(cases.CHUNKED)
        return b"".join(parser.body)

    return run


def chunks_by_h1c():
    body = []
    parser = gunicorn_h1c.H1CProtocol(on_body=body.append)

    def run():
        body.clear()
        parser.feed(cases.CHUNKED)
        parser.reset()
        return b"".join(body)

    return run


def chunks_by_h11():
    def run():
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(cases.CHUNKED)
        body = []
        while type(event := connection.next_event()) is not h11.EndOfMessage:
            if type(event) is h11.Data:
                body.append(event.data)
        return b"".join(body)

    return run


DECODERS = {
    "fasthttp": cases.chunked,
    "gunicorn_h1c": chunks_by_h1c,
    "httptools": chunks_by_httptools,
    "llhttp": chunks_by_llhttp,
    "h11": chunks_by_h11,
}


@pytest.mark.parametrize("decoder", DECODERS)
def test_chunks(benchmark, decoder):
    benchmark.group = f"{cases.CHUNKS} chunks of {len(cases.BODY)} bytes"
    assert benchmark(DECODERS[decoder]()) == cases.BODY * cases.CHUNKS


def heads_by_h11():
    def run():
        for _ in range(cases.HEADS):
            connection = h11.Connection(h11.SERVER)
            head = connection.send(
                h11.Response(status_code=200, headers=H11_FIELDS)
            )
        return head

    return run


SERIALIZERS = {"fasthttp": cases.serialized, "h11": heads_by_h11}


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_serializer(benchmark, serializer):
    benchmark.group = f"{cases.HEADS} response heads"
    head = benchmark(SERIALIZERS[serializer]())
    assert b"content-length: 5\r\n" in head.lower()
