"""Each case of the corpus, fed in every way; h11 as a second opinion."""

import dataclasses
import re

import h11
import pytest
from feeding import (
    CORPUS,
    NEXT,
    Message,
    Outcome,
    as_h11_tells,
    feed,
    feed_every_way,
    read_cases,
    read_with_h11,
)

from fasthttp import Config

VALID = read_cases("valid")
INVALID = read_cases("invalid")
NEXT_MESSAGE = Message("GET", "/n", "1.0", False, "/n", "", "", [], trailers=[])

EMPTY_LINE = (
    "h11 refuses the empty line that RFC 9112 section 2.2 asks to ignore"
)
# What we accept and h11 does not read the same, with the reason.
DIFFERENCES = {
    "request_line: one empty line first": EMPTY_LINE,
    "request_line: eight empty lines first": EMPTY_LINE,
    "request_line: an empty line between two requests": EMPTY_LINE,
    "request_line: the extra CR LF of an old client behind its body": (
        EMPTY_LINE
    ),
    "request_line: each request has its own count of empty lines": EMPTY_LINE,
    "limits: empty lines do not count to the request line": EMPTY_LINE,
    "chunked: the coding's name has no case": (
        "h11 tells the value in lower case; the framing is the same"
    ),
    "content_length: leading zeros": (
        "h11 takes no more than 20 digits; RFC 9110 section 8.6 sets no bound"
    ),
    "trailers: trailers do not frame": (
        "h11 looks at framing fields in trailers; RFC 9110 section 6.5.1:"
        " they are not for framing, and we keep them apart"
    ),
}

each_valid = pytest.mark.parametrize("case", VALID, ids=str)
each_invalid = pytest.mark.parametrize("case", INVALID, ids=str)


def pair(line):
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ")


def check_message(message, lines):
    """`message` is what the lines of a block under corpus/valid tell."""
    method, target, version, persistence = lines[0].split(" ")
    assert message.method == method
    assert message.target == target
    assert message.version == version
    assert message.keep_alive == (persistence == "keep-alive")
    told = {"@": [], "=": [], "+": []}
    fields = []
    for line in lines[1:]:
        if line[:2] in ("@ ", "= ", "+ "):
            told[line[0]].append(line[2:])
        else:
            fields.append(pair(line))
    assert message.headers == fields
    assert message.body == "".join(told["="]).encode("latin-1")
    assert message.trailers == [pair(line) for line in told["+"]]
    for line in told["@"]:
        part, _, text = line.partition(" ")
        assert getattr(message, part) == text


def check_remains(message, lines, *, complete):
    """The same of a block under corpus/invalid, where less is told."""
    assert f"{message.method} {message.target}" == lines[0]
    body = "".join(line.removeprefix("= ") for line in lines[1:])
    assert message.body == body.encode("latin-1")
    assert (message.trailers is not None) is complete


@each_valid
def test_valid(case):
    outcome = feed_every_way(case.data, **case.limits)
    assert outcome.error is None
    for message, lines in zip(outcome.messages, case.expected, strict=True):
        check_message(message, lines)


@each_valid
def test_valid_with_the_next_request_glued_on(case):
    alone = feed([case.data], **case.limits)
    outcome = feed_every_way(case.data + NEXT, **case.limits)
    assert outcome == Outcome([*alone.messages, NEXT_MESSAGE])


@each_invalid
def test_invalid(case):
    outcome = feed_every_way(case.data, **case.limits)
    *before, (*remains, verdict) = case.expected
    _, status, *words = verdict.split(" ", 2)
    assert outcome.error is not None, outcome
    assert outcome.error[0] == int(status)
    assert " ".join(words) in outcome.error[1]
    assert 0 <= outcome.error[2] <= len(case.data)
    if remains:
        check_remains(outcome.messages.pop(), remains, complete=False)
    for message, lines in zip(outcome.messages, before, strict=True):
        check_remains(message, lines, complete=True)


@each_invalid
def test_invalid_with_the_next_request_glued_on(case):
    outcome = feed_every_way(case.data + NEXT, **case.limits)
    assert outcome == feed([case.data], **case.limits)


@each_valid
def test_h11_reads_the_same(case):
    outcome = feed([case.data], **case.limits)
    try:
        same = list(read_with_h11(case.data)) == [
            as_h11_tells(message) for message in outcome.messages
        ]
    except h11.RemoteProtocolError:
        same = False
    assert same is (case.name not in DIFFERENCES)


def test_names_are_unique():
    names = [case.name for case in VALID + INVALID]
    assert len(set(names)) == len(names)
    assert set(DIFFERENCES) < set(names)


SHORT = {
    "P": "test_parser",
    "Q": "test_parser_properties",
    "S": "test_serializer",
    "H": "test_http1",
    "T": "test_transport",
    "W": "test_wsgi",
    "L": "test_server",
    "G": "test_graceful",
    "F": "test_faults",
    "K": "test_clients",
    "R": "test_peers",
}


def test_the_conformance_table_names_tests():
    text = (CORPUS.parent.parent / "docs" / "conformance.md").read_text()
    references = re.findall(r"`([A-Z]):([^`]+)`", text)
    assert len(references) > 120
    for short, name in references:
        if short == "C":
            start = ": ".join(name.split("/", 1))
            found = [c for c in VALID + INVALID if c.name.startswith(start)]
            assert found, name
        else:
            source = (CORPUS.parent / f"{SHORT[short]}.py").read_text()
            assert f"def {name}" in source, name


def test_the_conformance_table_names_each_limit():
    text = (CORPUS.parent.parent / "docs" / "conformance.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| ([\d^]+) \|", text, re.M))
    for option in dataclasses.fields(Config):
        if re.match("limit_|body_|.*_timeout$|keep_alive", option.name):
            base, _, power = told[option.name].partition("^")
            assert int(base) ** int(power or 1) == option.default, option.name
