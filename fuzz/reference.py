"""HTTP/1.1 read a second time, slowly and from whole inputs.

What the harnesses compare the server with: regular expressions instead of
a state machine, and of two readings always the stricter one.
"""

import ipaddress
import re
from typing import NamedTuple

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
FIELDS = rb"(?P<fields>(?:%s:%s\r\n)*)\r\n" % (TOKEN, TEXT)
NAME = rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
LITERAL = rb"\[[0-9A-Fa-f:.]+\]"
HOST = rb"(?P<host>%s|%s+)" % (LITERAL, NAME)
PIECE = rb"[\x21\x22\x24-\x7e]"

HEAD = re.compile(
    rb"(?P<method>%s) (?P<target>%s+) HTTP/1\.(?P<minor>[0-9])\r\n%s"
    % (TOKEN, PIECE, FIELDS)
)
ORIGIN_FORM = re.compile(rb"/%s*" % PIECE)
ABSOLUTE_FORM = re.compile(
    rb"(?i:https?)://(?P<authority>%s(?::[0-9]*)?)(?:[/?]%s*)?" % (HOST, PIECE)
)
AUTHORITY_FORM = re.compile(rb"(?P<authority>%s:[0-9]+)" % HOST)
HOST_FIELD = re.compile(rb"%s(?::[0-9]*)?" % HOST)
QUOTED = (
    rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
)
CHUNK_LINE = re.compile(
    rb"(?P<size>[0-9A-Fa-f]{1,15})(?:;%s(?:=(?:%s|%s))?)*\r\n"
    % (TOKEN, TOKEN, QUOTED)
)
TRAILERS = re.compile(FIELDS)
ANSWER = re.compile(
    rb"HTTP/1\.1 (?P<status>[1-9][0-9][0-9]) %s\r\n%s" % (TEXT, FIELDS)
)
MAX_EMPTY_LINES = 8


class Head(NamedTuple):
    """A request's head; `length` is None without a Content-Length."""

    method: str
    target: str
    authority: str
    minor: int
    keep_alive: bool
    expects: bool
    chunked: bool
    length: int | None
    headers: list[tuple[str, str]]


class Answer(NamedTuple):
    """A response with `size` bytes of content; `whole` if all is there."""

    status: int
    headers: dict[str, str]
    size: int
    whole: bool


def read_fields(block):
    """The (lower-case name, value) pairs of lines that match FIELDS."""
    return [
        (name.decode().lower(), value.strip(b" \t").decode("latin-1"))
        for name, _, value in (
            line.partition(b":") for line in block.split(b"\r\n")[:-1]
        )
    ]


def read_head(data, at):
    """The head that starts at `at` and where it ends; None if refused."""
    match = HEAD.match(data, at)
    if match is None:
        return None
    headers = read_fields(match["fields"])
    values = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    minor = int(match["minor"] != b"0")
    hosts = values.get("host", [])
    authority = read_authority(match["method"], match["target"])
    if authority is None or len(hosts) > 1 or len(hosts) < minor:
        return None
    if any(hosts) and not match_host(HOST_FIELD, hosts[0].encode("latin-1")):
        return None
    lengths = values.get("content-length", [])
    if len(lengths) > 1 or not all(map(is_number, lengths)):
        return None
    codings = [value.lower() for value in values.get("transfer-encoding", ())]
    if codings and (codings != ["chunked"] or lengths or not minor):
        return None
    expected = [value.lower() for value in values.get("expect", ()) if minor]
    if set(expected) - {"100-continue"}:
        return None
    options = tokens(",".join(values.get("connection", ())))
    return Head(
        match["method"].decode(),
        match["target"].decode(),
        authority.decode() or (hosts[0] if hosts else ""),
        minor,
        bool(minor or "keep-alive" in options) and "close" not in options,
        bool(expected),
        bool(codings),
        int(lengths[0]) if lengths else None,
        headers,
    ), match.end()


def read_authority(method, target):
    """The authority in `target`, empty if it has none; None if refused."""
    if method != b"CONNECT" and ORIGIN_FORM.fullmatch(target):
        return b""
    if target == b"*":
        return b"" if method == b"OPTIONS" else None
    match = match_host(
        AUTHORITY_FORM if method == b"CONNECT" else ABSOLUTE_FORM, target
    )
    return match and match["authority"]


def match_host(pattern, text):
    """The match of `text` if its host is one; else None."""
    match = pattern.fullmatch(text)
    if match and match["host"].startswith(b"["):
        try:
            ipaddress.IPv6Address(match["host"][1:-1].decode())
        except ValueError:
            return None
    return match


def is_number(text):
    """Digits that make less than 2^63."""
    return text.isascii() and text.isdigit() and int(text) < 1 << 63


def tokens(value):
    """The members of a comma-separated list, in lower case."""
    members = [member.strip(" \t").lower() for member in value.split(",")]
    return [member for member in members if member]


def read_chunked(data, at):
    """Body, trailers and end of a chunked body; None unless it is whole."""
    parts = []
    while (line := CHUNK_LINE.match(data, at)) is not None:
        at, size = line.end(), int(line["size"], 16)
        if not size:
            match = TRAILERS.match(data, at)
            return match and (
                b"".join(parts),
                read_fields(match["fields"]),
                match.end(),
            )
        parts.append(data[at : at + size])
        at += size
        if data[at : at + 2] != b"\r\n":
            return None
        at += 2
    return None


def read_requests(data):
    """Each whole request in `data`: (Head, body, trailers)."""
    at = 0
    while True:
        for _ in range(MAX_EMPTY_LINES):
            if data.startswith(b"\r\n", at):
                at += 2
        found = read_head(data, at)
        if found is None:
            return
        head, at = found
        if head.chunked:
            rest = read_chunked(data, at)
            if rest is None:
                return
            body, trailers, at = rest
        else:
            body, trailers = data[at : at + (head.length or 0)], []
            if len(body) < (head.length or 0):
                return
            at += len(body)
        yield head, body, trailers


def read_answers(data, methods):
    """The responses in `data`; `methods` are those of their requests.

    Raises AssertionError at a byte that is of none.
    """
    answers = []
    at = 0
    while at < len(data):
        match = ANSWER.match(data, at)
        assert match, f"no response at {at}: {data[at : at + 80]!r}"
        at = match.end()
        status = int(match["status"])
        fields = read_fields(match["fields"])
        if status == 100:
            assert not fields, "a field in 100 Continue"
            continue
        headers = dict(fields)
        assert len(headers) == len(fields), f"a field twice: {fields}"
        assert not {"content-length", "transfer-encoding"} <= set(headers)
        method = methods[len(answers)] if len(answers) < len(methods) else ""
        start, whole = at, True
        if method == "HEAD" or status in (204, 205, 304):
            pass
        elif "content-length" in headers:
            at = start + int(headers["content-length"])
            whole = at <= len(data)
        elif "transfer-encoding" in headers:
            assert headers["transfer-encoding"] == "chunked"
            found = read_chunked(data, at)
            whole = found is not None
            at = found[2] if whole else len(data)
        else:
            assert headers.get("connection") == "close"
            at = len(data)
        answers.append(Answer(status, headers, at - start, whole))
    return answers
