"""What the clients are tried on: an application without a framework."""

import itertools
import json
import os
import resource

from bodies import BLOCK, digest


def text(body, start_response, *fields):
    start_response("200 OK", [("Content-Type", "text/plain"), *fields])
    return body


def hello(environ, start_response):
    return text([b"Hello, World!\n"], start_response)


def echo(environ, start_response):
    return text([environ["wsgi.input"].read()], start_response)


def count(environ, start_response):
    found = digest(environ["wsgi.input"])
    found["method"] = environ["REQUEST_METHOD"]
    return text([json.dumps(found).encode()], start_response)


def blocks(environ, start_response):
    """As many blocks as the query says, made one by one."""
    number = int(environ["QUERY_STRING"])
    return text(itertools.repeat(BLOCK, number), start_response)


def sized(environ, start_response):
    """The same, its length said before."""
    number = int(environ["QUERY_STRING"])
    length = "Content-Length", str(number * len(BLOCK))
    return text(itertools.repeat(BLOCK, number), start_response, length)


def write(environ, start_response):
    """The same through write(), which cannot wait for the client."""
    put = start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(int(environ["QUERY_STRING"])):
        put(BLOCK)
    return []


def file(environ, start_response):
    opened = open(os.environ["FILE"], "rb")  # noqa: SIM115
    return text(environ["wsgi.file_wrapper"](opened), start_response)


def port(environ, start_response):
    return text([environ["REMOTE_PORT"].encode()], start_response)


def peak(environ, start_response):
    """The most memory this process has had, in KiB."""
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return text([str(usage).encode()], start_response)


PLACES = {
    "/": hello,
    "/echo": echo,
    "/count": count,
    "/blocks": blocks,
    "/sized": sized,
    "/file": file,
    "/write": write,
    "/peak": peak,
    "/port": port,
}


def app(environ, start_response):
    return PLACES[environ["PATH_INFO"]](environ, start_response)
