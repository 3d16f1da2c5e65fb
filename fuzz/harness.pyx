"""What the fuzzers run: a function for each harness, from one input's bytes.

Each raises AssertionError for a broken promise; any exception but those
the server documents is a finding too.
"""
import gc
import logging
import os
import sys

cimport cython
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy, memset
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE,
    mmap, mprotect
)

from fasthttp._fields cimport Field
from fasthttp._parser cimport (
    DATA, END, HEAD, NEED_DATA, RequestHead, RequestParser
)
from fasthttp._protocol cimport BaseProtocol, BaseTransport

import reference
from fasthttp._parser import scans_agree
from fasthttp.config import Config
from fasthttp.errors import AppError, PeerError

cdef enum:
    ROOM = 1 << 20
    NOTES = 1 << 20
    # No smaller than a page anywhere.
    GUARD = 1 << 16
    RANDOM = -1
    HIGH_WATER = 65536
    LOW_WATER = 16384

cdef bytes GOOD_REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
cdef bytes CHUNKED_HEAD = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
)
WIDE = Config()
TIGHT = Config(
    limit_request_line=40,
    limit_request_fields=3,
    limit_request_field_size=50,
    limit_request_head=120,
    limit_request_body=60,
)
SMALL_BODY = Config(limit_request_body=60)
MANY_FIELDS = Config(limit_request_fields=10000)
# What a limit is answered with; the reference has none.
LIMITS = {413, 414, 431}

logging.getLogger("fasthttp.error").setLevel(logging.CRITICAL + 1)

cdef object application, full_serializer, plain_serializer


def prepare(name):
    """Load what the harness `name` runs.

    Not more: the counters of every loaded module are read after each input.
    """
    global application, full_serializer, plain_serializer
    if name == "serializer":
        from fasthttp._serializer import ResponseSerializer
        full_serializer = ResponseSerializer()
        plain_serializer = ResponseSerializer("")
    elif name in ("protocol", "gateway"):
        import application
    gc.freeze()
    return globals()[name]


cdef class Window:
    """Memory that ends at an unreadable page."""

    cdef char *end

    def __cinit__(self):
        cdef void *start = mmap(
            NULL, ROOM + GUARD, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
        )
        if start == MAP_FAILED:
            raise MemoryError
        self.end = <char *>start + ROOM
        mprotect(self.end, GUARD, PROT_NONE)

    cdef const char *show(self, const char *data, Py_ssize_t size) noexcept:
        memcpy(self.end - size, data, size)
        return self.end - size

    cdef void forget(self, Py_ssize_t size) noexcept:
        """Nothing may point here any more: make it differ."""
        memset(self.end - size, 0xaa, size)


cdef Window window = Window()


cdef class Pieces:
    """Sizes of the parts that an input arrives in.

    Each is `step`, or random; before them `first`, if it is not 0.
    """

    cdef Py_ssize_t step, first
    cdef unsigned seed

    def __cinit__(
        self, Py_ssize_t step, unsigned seed, Py_ssize_t first
    ):
        self.step = step
        self.seed = seed | 1
        self.first = first

    cdef Py_ssize_t next_size(self, Py_ssize_t left) noexcept:
        cdef Py_ssize_t size = self.step
        if self.first:
            size = self.first
            self.first = 0
        elif size == RANDOM:
            self.seed ^= self.seed << 13
            self.seed ^= self.seed >> 17
            self.seed ^= self.seed << 5
            size = 1 + (self.seed >> 8) % (
                4 if self.seed & 3 else 256
            )
        return min(size, left)


# Parser and chunked body.

cdef list events_of(RequestParser parser, bytes data, Pieces pieces):
    """Heads as tuples, bodies as one bytearray each, trailers as lists."""
    cdef const char *text = data
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t size
    cdef list events = []
    try:
        while at < len(data):
            size = pieces.next_size(len(data) - at)
            parser.feed(
                <const unsigned char *>window.show(text + at, size), size
            )
            take_events(parser, events)
            parser.keep()
            window.forget(size)
            at += size
    except PeerError as error:
        events.append((error.status, error.detail, error.offset))
        expect_no_more(parser)
    return events


cdef int take_events(RequestParser parser, list events) except -1:
    cdef int event
    while True:
        event = parser.next_event()
        if event == HEAD:
            events.append(head_of(parser))
            events.append(bytearray())
        elif event == DATA:
            (<bytearray>events[-1]).extend(
                parser.data[:parser.data_size]
            )
        elif event == END:
            events.append(
                parser.copy_head().headers if parser.head.chunked else []
            )
        else:
            return 0


cdef tuple head_of(RequestParser parser):
    cdef RequestHead head = parser.copy_head()
    return (
        head.method, head.target, head.authority, head._head.minor,
        bool(head._head.keep_alive), bool(head._head.expect_continue),
        bool(head._head.chunked),
        head._head.content_length if head._head.content_length >= 0
        else None,
        head.headers, head.path, head.query,
    )


cdef int expect_no_more(RequestParser parser) except -1:
    try:
        events = parser.receive_data(GOOD_REQUEST)
    except PeerError:
        return 0
    raise AssertionError(f"after an error: {events}")


cdef class Record:
    """The same events as bytes, which costs no Python objects."""

    cdef char notes[NOTES]
    cdef char content[NOTES]    # of all bodies
    cdef Py_ssize_t noted, taken
    cdef int status             # of a refusal
    cdef long long offset

    cdef int note(self, const void *data, Py_ssize_t size) except -1:
        if size == 0:
            return 0
        if size > NOTES - self.noted:
            raise AssertionError(f"{size} bytes too many")
        memcpy(self.notes + self.noted, data, size)
        self.noted += size
        return 0

    cdef int take(self, RequestParser parser) except -1:
        cdef int event
        while True:
            event = parser.next_event()
            if event == DATA:
                if parser.data_size > NOTES - self.taken:
                    raise AssertionError(f"{parser.data_size} bytes too many")
                memcpy(
                    self.content + self.taken, parser.data, parser.data_size
                )
                self.taken += parser.data_size
            elif event == NEED_DATA:
                return 0
            else:
                self.note(&event, sizeof(event))
                self.note(&self.taken, sizeof(self.taken))
                if event == HEAD or parser.head.chunked:
                    self.note_head(parser)

    cdef int note_head(self, RequestParser parser) except -1:
        cdef int index
        cdef Field *field
        cdef uint32_t at
        self.note(parser.at(0), parser.head.size)
        for index in range(parser.head.count):
            field = &parser.head.fields[index]
            # `high`, the last, depends on what stood beside the value.
            self.note(field, sizeof(Field) - sizeof(bint))
            for at in range(field.value, field.value + field.value_size):
                if parser.at(at)[0] > 0x7f and not field.high:
                    raise AssertionError(f"not seen to be high: field {index}")
        self.note(&parser.head.content_length, sizeof(long long))
        self.note(&parser.head.minor, sizeof(int))
        self.note(&parser.head.chunked, sizeof(bint))
        self.note(&parser.head.keep_alive, sizeof(bint))
        self.note(&parser.head.expect_continue, sizeof(bint))
        return 0

    cdef int read(
        self, RequestParser parser, bytes data, Pieces pieces
    ) except -1:
        cdef const char *text = data
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t size
        self.noted = self.taken = self.status = self.offset = 0
        try:
            while at < len(data):
                size = pieces.next_size(len(data) - at)
                parser.feed(
                    <const unsigned char *>window.show(text + at, size), size
                )
                self.take(parser)
                parser.keep()
                window.forget(size)
                at += size
        except PeerError as error:
            self.status = error.status
            self.offset = error.offset
        return 0

    cdef tuple show(self):
        return (
            self.notes[:self.noted], self.content[:self.taken],
            self.status, self.offset
        )

    cdef bint equals(self, Record other) noexcept:
        return (
            self.noted == other.noted and self.taken == other.taken
            and self.status == other.status and self.offset == other.offset
            and memcmp(self.notes, other.notes, self.noted) == 0
            and memcmp(self.content, other.content, self.taken) == 0
        )


cdef Record whole = Record()
cdef Record split = Record()


cdef int check_parser(
    bytes data, Py_ssize_t first, object config, unsigned seed
) except -1:
    """The first bytes, so many as `first` says, always come as one part."""
    cdef Py_ssize_t step = 1 if seed & 0x30 == 0 else RANDOM
    whole.read(RequestParser(config), data, Pieces(ROOM, 0, 0))
    split.read(RequestParser(config), data, Pieces(step, seed, first))
    if seed & 0x3f00 == 0 or not whole.equals(split):
        check_events(data, config, Pieces(step, seed, first))
        if not whole.equals(split):
            raise AssertionError(f"{whole.show()}, in parts {split.show()}")
    return 0


cdef int check_events(bytes data, object config, Pieces pieces) except -1:
    events = events_of(RequestParser(config), data, Pieces(ROOM, 0, 0))
    in_parts = events_of(RequestParser(config), data, pieces)
    if events != in_parts:
        raise AssertionError(f"whole {events}, in parts {in_parts}")
    compare_with_reference(data, events)
    return 0


cdef bint is_refusal(object event):
    return type(event) is tuple and len(<tuple>event) == 3


cdef int compare_with_reference(bytes data, list events) except -1:
    cdef list ours = []
    for index, event in enumerate(events):
        if type(event) is list:
            ours.append(
                (events[index - 2][:9], bytes(events[index - 1]), event)
            )
    theirs = list(reference.read_requests(data))
    if ours == theirs:
        return 0
    if ours != theirs[:len(ours)] or not (
        events and is_refusal(events[-1]) and events[-1][0] in LIMITS
    ):
        raise AssertionError(f"ours {events}, the reference {theirs}")
    return 0


def parser(bytes data, unsigned seed):
    """Requests from the first byte on, with wide or narrow limits."""
    if seed & 0xfc00 == 0 and not scans_agree(data):
        raise AssertionError("the scans disagree")
    check_parser(data, 0, TIGHT if seed & 0x40 else WIDE, seed)


def chunked(bytes data, unsigned seed):
    """A chunked body and what follows it."""
    config = SMALL_BODY if seed & 0x40 else WIDE
    check_parser(CHUNKED_HEAD + data, len(CHUNKED_HEAD), config, seed)


# Serializer.

cdef set NOT_SENT = {
    "connection", "content-length", "keep-alive", "proxy-connection",
    "transfer-encoding",
}
cdef set NOT_REPARSED = NOT_SENT | {"expect", "host"}


cdef str text_of(bytes data):
    """Latin-1, or wider characters after an 0xFE."""
    if data[:1] == b"\xfe":
        return "".join([chr(byte << 8) for byte in data[1:]])
    return data.decode("latin-1")


def serializer(bytes data, unsigned seed):
    """Flags, status, then names and values, all parted by 0xFF."""
    flags = data[0] if data else 0
    texts = [text_of(part) for part in data[1:].split(b"\xff")]
    status = texts[0]
    if flags & 1 and status.isascii() and status.isdigit():
        status = int(status[:6])
    # The serializer knows names by their identity.
    names = [sys.intern(name) for name in texts[1::2]]
    fields = list(zip(names, texts[2::2], strict=False))
    version = "1.0" if flags & 2 else "1.1"
    method = "HEAD" if flags & 4 else "GET"
    length = len(data) if flags & 8 else None
    target = plain_serializer if flags & 16 else full_serializer
    try:
        head = target.head(
            status, fields, version=version, method=method,
            keep_alive=not flags & 32, length=length
        )
    except AppError:
        return
    check_head(target, head, fields, version, method, length)


def passed_on(name, value):
    """What is sent of an application's field."""
    if name.lower() == "connection":
        options = [option.strip() for option in value.lower().split(",")]
        return [("connection", "upgrade")] * options.count("upgrade")
    if name.lower() in NOT_SENT:
        return []
    return [(name.lower(), value.strip(" \t"))]


cdef int check_head(
    object target, bytes head, list fields, str version, str method,
    object length
) except -1:
    match = reference.ANSWER.fullmatch(head)
    if match is None or int(match["status"]) != target.status:
        raise AssertionError(f"not a response head: {head}")
    sent = reference.read_fields(match["fields"])
    given = [field for pair in fields for field in passed_on(*pair)]
    if sent[:len(given)] != given:
        raise AssertionError(f"given {given}, sent {sent}")
    added = dict(sent[len(given):])
    if len(added) + len(given) != len(sent):
        raise AssertionError(f"added twice: {sent}")
    present = {name for name, _ in sent}
    if "date" not in present or set(added) - NOT_SENT - {"date", "server"}:
        raise AssertionError(f"added {added}")
    check_framing(target, added, version, method)
    # A request with the same fields is read back with the same fields.
    lines = [
        f"{name}: {value}\r\n" for name, value in sent
        if name not in NOT_REPARSED
    ]
    request = f"GET / HTTP/1.1\r\nHost: a\r\n{''.join(lines)}\r\n"
    events = RequestParser(MANY_FIELDS).receive_data(
        request.encode("latin-1")
    )
    if events[0].headers[1:] != [
        (name, value) for name, value in sent if name not in NOT_REPARSED
    ]:
        raise AssertionError(f"sent {sent}, read {events[0].headers}")
    return 0


cdef int check_framing(
    object target, dict added, str version, str method
) except -1:
    chunked = "transfer-encoding" in added
    close = added.get("connection") == "close"
    bodiless = method == "HEAD" or target.status in (204, 205, 304)
    expected = (
        0 if bodiless else 2 if chunked
        else 1 if "content-length" in added else 3
    )
    if (
        target.framing != expected
        or chunked and (version == "1.0" or "content-length" in added)
        or target.framing == 3 and not close
        or target.keep_alive == close
    ):
        raise AssertionError(f"framing {target.framing} of {added}")
    return 0


# Whole connections.

cdef class Wire(BaseTransport):
    """A transport without a socket; `blocked` while its peer reads nothing."""

    cdef BaseProtocol protocol
    cdef bytearray sent
    cdef Py_ssize_t unsent
    cdef bint blocked, throttled, paused, closing, waits
    cdef double deadline
    cdef double time

    def __cinit__(self):
        self.sent = bytearray()

    cpdef object getpeername(self):
        return ("192.0.2.1", 4711)

    cpdef object getsockname(self):
        return ("192.0.2.2", 80)

    cpdef int write(self, data) except -1:
        if self.closing:
            return 0
        self.sent += data
        self.unsent += len(data)
        if self.unsent > HIGH_WATER:
            self.flush()
            if self.unsent > HIGH_WATER and not self.throttled:
                self.throttled = True
                self.protocol.pause_writing()
        return 0

    cpdef int write_file(
        self, object owner, int fd, long long offset, long long count
    ) except -1:
        return self.write(os.pread(fd, count, offset))

    cpdef int flush(self) except -1:
        if not self.blocked:
            self.unsent = 0
        return 0

    cpdef Py_ssize_t queued(self) except -1:
        return self.unsent

    cpdef bint full(self) except -1:
        if self.unsent <= HIGH_WATER:
            return False
        self.throttled = True
        return True

    cpdef double now(self) except -1:
        return self.time

    cpdef bint has_input(self) except -1:
        return self.waits

    cpdef double set_deadline(self, double seconds) except -1:
        self.deadline = self.time + seconds if seconds > 0 else 0
        return self.time

    cpdef int pause_reading(self) except -1:
        self.paused = True
        return 0

    cpdef int resume_reading(self) except -1:
        self.paused = False
        return 0

    cpdef int close(self) except -1:
        self.closing = True
        return 0


@cython.final
cdef class Connection:
    """Plays an input to one protocol, as the transport would.

    After an 0xFF stands what happens besides the arrival of data: see
    `happen`.
    """

    cdef Wire wire
    cdef BaseProtocol protocol
    cdef object server
    cdef Pieces pieces
    cdef bytes arriving
    cdef bytearray taken
    cdef bint eof, eof_seen, lost, rested

    def __init__(self, factory, server, seed):
        self.wire = Wire()
        self.server = server
        self.pieces = Pieces(RANDOM if seed & 1 else ROOM, seed, 0)
        self.taken = bytearray()
        self.arriving = b""
        self.protocol = factory(server, self.wire, self.wire)
        self.wire.protocol = self.protocol
        self.protocol.connection_made()

    def play(self, bytes data):
        first, *rest = data.split(b"\xff")
        self.arrive(first)
        for part in rest:
            if self.lost:
                return
            self.happen(part[:1])
            self.arrive(part[1:])
        if not self.lost:
            self.come_to_rest()
            self.lose()

    cdef int come_to_rest(self) except -1:
        """Nothing is held back any longer: whatever can happen does."""
        self.wire.blocked = False
        self.settle()
        self.arrive(b"")
        while application.waiting:
            application.answer_waiting()
            self.settle()
            self.arrive(b"")
        self.rested = not self.wire.closing
        if self.rested and self.arriving:
            raise AssertionError(f"not read: {self.arriving}")
        return 0

    cdef int happen(self, bytes what) except -1:
        if what == b"e":
            self.eof = True
        elif what == b"d":
            if self.wire.deadline:
                self.wire.time = max(self.wire.time, self.wire.deadline)
                self.wire.deadline = 0
                self.protocol.deadline_expired()
        elif what == b"b":
            self.wire.blocked = not self.wire.blocked
        elif what == b"a":
            application.answer_waiting()
        elif what == b"s" and not self.wire.closing:
            self.protocol.drain()
        elif what == b"w":
            self.wire.waits = not self.wire.waits
        elif what == b"t":
            self.wire.time += 1
        elif what == b"c":
            return self.lose()
        return self.settle()

    cdef int lose(self) except -1:
        self.lost = True
        self.protocol.connection_lost()
        self.wire.closing = True
        self.wire.protocol = None
        return self.run_calls()

    cdef bint readable(self) noexcept:
        return not (
            self.wire.closing or self.wire.paused or self.wire.throttled
            or self.eof_seen or self.lost
        )

    cdef int arrive(self, bytes data) except -1:
        cdef Py_ssize_t size, at = 0
        self.arriving += data
        while at < len(self.arriving) and self.readable():
            size = self.receive(at)
            at += size
            self.settle()
        self.arriving = self.arriving[at:]
        if self.eof and not self.arriving and self.readable():
            self.eof_seen = True
            self.protocol.eof_received()
            self.settle()
        return 0

    cdef Py_ssize_t receive(self, Py_ssize_t at) except -1:
        cdef const char *text = self.arriving
        cdef char *target = NULL
        cdef Py_ssize_t room = 0
        cdef Py_ssize_t size = self.pieces.next_size(len(self.arriving) - at)
        self.protocol.get_buffer(&target, &room)
        if target is NULL:
            target = <char *>window.show(text + at, size)
            self.protocol.data_received(target, size)
            window.forget(size)
        else:
            size = min(size, room)
            memcpy(target, text + at, size)
            self.protocol.data_received(target, size)
        self.taken += self.arriving[at:at + size]
        return size

    cdef int settle(self) except -1:
        self.flush()
        self.run_calls()
        self.flush()
        return 0

    cdef int flush(self) except -1:
        self.wire.flush()
        if self.wire.throttled and self.wire.unsent <= LOW_WATER:
            self.wire.throttled = False
            self.protocol.resume_writing()
        return 0

    cdef int run_calls(self) except -1:
        while self.server.calls:
            callback, args = self.server.calls.popleft()
            callback(*args)
            self.wire.flush()
        return 0


cdef Connection play(object factory, bytes data, unsigned seed):
    cdef Connection connection
    application.begin()
    connection = Connection(factory, application.SERVER, seed)
    connection.play(data)
    # Too late for the client, but not a fault.
    application.answer_waiting()
    return connection


cdef int check_answers(Connection connection) except -1:
    cdef list requests = application.requests
    theirs = []
    for each in reference.read_requests(bytes(connection.taken)):
        if each[0].method == "CONNECT":
            break
        theirs.append(each)
    for (head, body, _), request in zip(theirs, requests, strict=False):
        if request != application.expected(head, body, request):
            raise AssertionError(f"{request} of {head} and {body}")
    if len(requests) > len(theirs):
        raise AssertionError(f"{requests} of {theirs}")
    answers = reference.read_answers(
        bytes(connection.wire.sent), [request.method for request in requests]
    )
    if len(answers) > len(requests) + 1 or (
        len(answers) > len(requests) and answers[-1].status < 400
    ):
        raise AssertionError(f"{answers} to {requests}")
    if connection.rested and not (
        len(theirs) == len(requests) == len(answers)
        and all([answer.whole for answer in answers])
    ):
        raise AssertionError(f"{answers} to {requests} of {theirs}")
    for answer in answers[:-1]:
        if not answer.whole or answer.headers.get("connection") == "close":
            raise AssertionError(f"something follows in {answers}")
    if answers and answers[-1].headers.get("connection") == "close" and (
        answers[-1].whole and not connection.wire.closing
    ):
        raise AssertionError(f"not closed after {answers}")
    return 0


def protocol(bytes data, unsigned seed):
    """HttpProtocol, subclassed in Python."""
    connection = play(
        application.Narrow if len(data) & 1 else application.Wide,
        data, seed
    )
    check_answers(connection)


def gateway(bytes data, unsigned seed):
    """A WSGI application in the loop."""
    connection = play(
        application.NARROW_GATEWAY if len(data) & 1
        else application.WIDE_GATEWAY,
        data, seed
    )
    check_answers(connection)
