"""What the environ is made of; what it holds is tested with the gateway."""

import gc
import operator
import random
import sys

import pytest

from fasthttp._environ import EnvironTemplate, environ_base
from fasthttp._fields import KNOWN_NAMES
from fasthttp._parser import RequestParser
from fasthttp.errors import PeerError

BASE = environ_base()
TEMPLATE = EnvironTemplate(BASE, ("192.0.2.1", 8080))
# The first five have a meaning for the parser, which refuses most values.
NAMES = [*KNOWN_NAMES[5:], "x-own", "X_Own"]
HEAD = (
    b"GET /%61?b=c HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX-Own: 1\r\n"
    b"Cookie: k=v\r\n\r\n"
)


def test_the_environ_of_one_head():
    environ = TEMPLATE.environ_of(RequestParser(), HEAD)
    changed = {
        key: value for key, value in environ.items() if BASE.get(key) != value
    }
    assert changed == {
        "PATH_INFO": "/a",
        "QUERY_STRING": "b=c",
        "RAW_URI": "/%61?b=c",
        "REQUEST_URI": "/%61?b=c",
        "HTTP_HOST": "a",
        "HTTP_ACCEPT": "*/*",
        "HTTP_X_OWN": "1",
        "HTTP_COOKIE": "k=v",
        "SERVER_NAME": "192.0.2.1",
        "SERVER_PORT": "8080",
    }
    assert set(BASE) <= set(environ)


def test_each_request_gets_a_dict_of_its_own():
    parser = RequestParser()
    first = TEMPLATE.environ_of(parser, HEAD)
    kept = dict(first)
    first.clear()
    assert TEMPLATE.environ_of(parser, HEAD) == kept


def test_what_came_before_does_not_show():
    """Rows of fields that come again, in more variety than is kept."""
    chance = random.Random(3)
    rows = [
        chance.choices(NAMES, k=size)
        for size in (*range(40), *range(1, 8), 1, 2, 3)
    ]
    template = EnvironTemplate(BASE, ("192.0.2.1", 8080))
    parser = RequestParser()
    for _ in range(3000):
        lines = [
            f"{name}: {chance.choice(['', 'a', 'b', 'a' * 300, chr(233)])}"
            for name in chance.choice(rows)
        ]
        start = chance.choice(["GET /", "PUT /?q", "GET http://b"])
        head = "\r\n".join([f"{start} HTTP/1.1", "Host: a", *lines, "", ""])
        data = head.encode("latin-1")
        environ = template.environ_of(parser, data)
        fresh = EnvironTemplate(BASE, ("192.0.2.1", 8080))
        assert environ == fresh.environ_of(RequestParser(), data)
        chance.choice([bool, dict.clear])(environ)


@pytest.mark.parametrize(
    ("address", "name", "port"),
    [
        (("192.0.2.1", 8080), "192.0.2.1", "8080"),
        (("2001:db8::1", 80, 0, 0), "[2001:db8::1]", "80"),
        ("/run/socket", "localhost", "80"),
    ],
)
def test_the_server_of_a_template(address, name, port):
    template = EnvironTemplate(environ_base(), address)
    environ = template.environ_of(RequestParser(), HEAD)
    assert environ["SERVER_NAME"] == name
    assert environ["SERVER_PORT"] == port


def test_a_dict_has_room_for_twenty_fields():
    def size(count):
        lines = b"".join(b"X-%d: 1\r\n" % at for at in range(count))
        head = b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"
        return sys.getsizeof(TEMPLATE.environ_of(RequestParser(), head))

    assert size(0) == size(19) < size(20)


def test_what_is_no_whole_head():
    parser = RequestParser()
    with pytest.raises(ValueError, match="not the whole head"):
        TEMPLATE.environ_of(parser, HEAD[:-1])
    head, _ = parser.receive_data(HEAD[-1:])
    assert head.target == "/%61?b=c"
    with pytest.raises(PeerError):
        TEMPLATE.environ_of(RequestParser(), b"GET  HTTP/1.1\r\n")


def test_nothing_is_left_of_a_request():
    parser = RequestParser()

    def blocks():
        for _ in range(100):
            TEMPLATE.environ_of(parser, HEAD)
        gc.collect()
        return sys.getallocatedblocks()

    levels = [blocks() for _ in range(5)]
    # What requests leave grows each time; what the interpreter keeps, once.
    assert min(map(operator.sub, levels[1:], levels)) <= 2, levels
