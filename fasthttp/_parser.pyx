"""An incremental, strict parser of HTTP/1.1 requests (RFC 9112); no I/O.

The C interface: `feed` a window of bytes, call `next_event` until it
answers NEED_DATA, then `keep` what is left of the window. Offsets in `head`
count from the head's first byte and hold until the next event.
"""
cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_INCREF
from libc.limits cimport LLONG_MAX
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy, memmove

from fasthttp._fields cimport (
    ACTED_ON, CONNECTION, CONTENT_LENGTH, fh_names, FieldMemo, HOST, latin1,
    MEMO_HOST, pair_of, PyUnicode_DATA, TRANSFER_ENCODING
)

from fasthttp.config import Config
from fasthttp.errors import PeerError

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(object)
    void PyObject_GC_Track(object)

cdef extern from "<arpa/inet.h>":
    int AF_INET6
    int inet_pton(int, const char *, void *) noexcept

cdef extern from "_scan.h":
    const unsigned char fh_tchar[256]
    ctypedef unsigned char byte "fh_byte"
    ctypedef int fh_lines(
        const fh_names *, const byte *, const byte *, Py_ssize_t, Cursor *,
        Field *, int
    ) noexcept
    ctypedef struct fh_form:
        const char *name
        fh_lines *lines
    const byte *fh_skip(
        const byte *, const byte *, const byte *
    ) noexcept
    const byte *fh_token_end(const byte *, const byte *) noexcept
    const byte *fh_target_end(
        const byte *, const byte *, const byte *
    ) noexcept
    const byte *fh_find(
        const byte *, const byte *, const byte *, byte
    ) noexcept
    int fh_hex_value(byte) noexcept
    Py_ssize_t fh_percent_decode(const byte *, Py_ssize_t, char *) noexcept
    int fh_forms(fh_form *) noexcept
    int fh_scan_check(
        const fh_names *, const byte *, const byte *
    ) noexcept

cdef enum:
    BEFORE = 0          # empty lines before the request line
    METHOD = 1
    TARGET = 2
    VERSION = 3
    FIELDS = 4
    HEAD_DONE = 5
    BODY = 6            # Content-Length
    CHUNK_SIZE = 7
    EXTENSION = 8
    EXTENSION_NAME = 9
    EXTENSION_VALUE = 10
    EXTENSION_TOKEN = 11
    QUOTED = 12
    QUOTED_PAIR = 13
    AFTER_QUOTED = 14
    CHUNK_LINE_LF = 15
    CHUNK_DATA = 16
    CHUNK_DATA_CR = 17
    CHUNK_DATA_LF = 18
    TRAILERS = 19
    MESSAGE_DONE = 20
    FAILED = 21

cdef enum:
    # RFC 9112 section 2.2 asks to ignore at least one.
    MAX_EMPTY_LINES = 8
    FIRST_FIELDS = 16
    # Of a broken request, for the log.
    SHOWN_BYTES = 80

cdef tuple METHODS = (
    "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"
)
cdef const byte *EMPTY = b""
cdef object NESTED = RuntimeError("a receive_data() of this parser runs")
cdef fh_form forms[3]
cdef int _forms = fh_forms(forms)
cdef fh_lines *read_lines = forms[0].lines
VECTORS = tuple([forms[index].name.decode() for index in range(_forms)])


cdef inline bint is_word(
    const byte *p, Py_ssize_t size, const char *word, Py_ssize_t length
) noexcept:
    """Equal to the lower-case letters of `word`, in any case?"""
    cdef Py_ssize_t i
    cdef unsigned other = 0
    if size != length:
        return False
    for i in range(length):
        other |= (p[i] | (0x20 if word[i] >= c"a" else 0)) ^ <byte>word[i]
    return other == 0


cdef inline const byte *trim(const byte **start, const byte *end) noexcept:
    """Cut optional white space off both ends of a list's member."""
    while start[0] < end and (start[0][0] == c" " or start[0][0] == c"\t"):
        start[0] += 1
    while end > start[0] and (end[-1] == c" " or end[-1] == c"\t"):
        end -= 1
    return end


cdef inline bint is_exactly(
    const byte *p, Py_ssize_t size, const char *text, Py_ssize_t length
) noexcept:
    return size == length and memcmp(p, text, length) == 0


def scans_agree(bytes data):
    cdef const byte *p = <const byte *>PyBytes_AS_STRING(data)
    return fh_scan_check(FieldMemo().names, p, p + len(data)) < 0


def percent_decoded(bytes text not None):
    cdef bytes decoded = PyBytes_FromStringAndSize(NULL, len(text))
    cdef Py_ssize_t size = fh_percent_decode(
        <const byte *>PyBytes_AS_STRING(text), len(text),
        PyBytes_AS_STRING(decoded)
    )
    return decoded[:size]


cdef object method_name(const byte *text, Py_ssize_t size):
    for method in METHODS:
        if is_exactly(
            text, size, <const char *>PyUnicode_DATA(method), len(<str>method)
        ):
            return method
    return latin1(text, size, False)


# Of a request each: what the last few gave back is used again.
@cython.freelist(8)
cdef class RequestHead:
    """What stands before a body: request line and header fields.

    Made by `RequestParser`; the fields become objects when first asked for.
    """

    def __cinit__(self):
        self._raw = b""

    cdef object text(self, Span span):
        """Of the request line, which is ASCII."""
        return latin1(
            <const byte *>PyBytes_AS_STRING(self._raw) + span.start,
            span.size, False
        )

    @property
    def method(self):
        return method_name(
            <const byte *>PyBytes_AS_STRING(self._raw)
            + self._head.method.start, self._head.method.size
        )

    @property
    def target(self):
        return self.text(self._head.target)

    @property
    def path(self):
        if self._head.path.size == 0:
            return "/" if self._head.has_root else ""
        path = self._raw[
            self._head.path.start:self._head.path.start + self._head.path.size
        ]
        return percent_decoded(path).decode("utf-8", "surrogateescape")

    @property
    def query(self):
        return self.text(self._head.query)

    @property
    def authority(self):
        if self._head.authority.size:
            return self.text(self._head.authority)
        return self.header("host", "")

    @property
    def version(self):
        return "1.1" if self._head.minor else "1.0"

    @property
    def keep_alive(self):
        return bool(self._head.keep_alive)

    @property
    def headers(self):
        cdef const byte *raw = <const byte *>PyBytes_AS_STRING(self._raw)
        cdef int index
        if self._headers is None:
            headers = PyList_New(self._head.count)
            # Its empty places are for nobody to see.
            PyObject_GC_UnTrack(headers)
            # The loop may look for them meanwhile, and others may ask.
            with cython.critical_section(self._memo):
                for index in range(self._head.count):
                    pair = pair_of(self._memo, &self._head.fields[index], raw)
                    Py_INCREF(pair)
                    PyList_SET_ITEM(headers, index, pair)
            PyObject_GC_Track(headers)
            self._headers = headers
        return self._headers

    def header(self, name, default=None):
        wanted = name.lower()
        values = [value for key, value in self.headers if key == wanted]
        # RFC 9113 section 8.2.3: a comma is part of a cookie's value.
        glue = "; " if wanted == "cookie" else ", "
        return glue.join(values) if values else default

    def __repr__(self):
        return f"<{type(self).__name__} {self.method} {self.target}>"


@cython.final
@cython.freelist(8)
cdef class EndOfMessage:
    """The request is complete; `trailers` is a list of (name, value)."""

    cdef list _trailers

    def __init__(self, list trailers not None):
        self._trailers = trailers

    @property
    def trailers(self):
        if self._trailers is None:
            self._trailers = []
        return self._trailers

    def __eq__(self, other):
        return (
            isinstance(other, EndOfMessage)
            and self.trailers == other.trailers
        )

    def __repr__(self):
        return f"EndOfMessage({self.trailers!r})"


@cython.final
cdef class RequestParser:
    def __cinit__(self, config=None, FieldMemo memo=None):
        config = Config() if config is None else config
        # It has proved them: offsets are 32 bits wide.
        if not isinstance(config, Config):
            raise TypeError(f"not a Config: {config!r}")
        self._base = self._end = EMPTY
        self._start_message()
        self._config = config
        self._limit_line = config.limit_request_line
        self._limit_fields = config.limit_request_fields
        self._limit_field_size = config.limit_request_field_size
        self._limit_head = config.limit_request_head
        self._limit_body = config.limit_request_body
        self._limit_extensions = config.limit_chunk_extensions
        self.memo = FieldMemo() if memo is None else memo

    def __dealloc__(self):
        PyMem_Free(self.head.fields)
        PyMem_Free(self._kept)

    def receive_data(self, data):
        cdef Py_buffer view
        cdef list events = []
        if self._error is not None:
            # Without those who were told before.
            raise self._error.with_traceback(None)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        # What is made below may start a collection, and that a finalizer.
        self._error = NESTED
        try:
            self.feed(<const byte *>view.buf, view.len)
            self._add_events(events)
            self.keep()
            self._error = None
        except BaseException as error:
            self._state = FAILED
            self._end = self._base
            self._error = error
            if not events or not isinstance(error, PeerError):
                raise
        finally:
            PyBuffer_Release(&view)
        return events

    cdef int _add_events(self, list events) except -1:
        cdef int event
        cdef EndOfMessage end
        while True:
            event = self.next_event()
            if event == HEAD:
                events.append(self.copy_head())
            elif event == DATA:
                events.append(PyBytes_FromStringAndSize(
                    <const char *>self.data, self.data_size
                ))
            elif event == END:
                end = EndOfMessage.__new__(EndOfMessage)
                if self.head.chunked:
                    end._trailers = self.copy_head().headers
                events.append(end)
            else:
                return 0

    @property
    def between_messages(self):
        return bool(self.idle())

    cdef int feed(self, const byte *data, Py_ssize_t size) except -1:
        if self._kept_size == 0:
            self._base = data
            self._end = data + size
            return 0
        self._make_room(self._kept_size + size)
        memcpy(self._kept + self._kept_size, data, size)
        self._kept_size += size
        self._base = self._kept
        self._end = self._kept + self._kept_size
        return 0

    cdef int keep(self) except -1:
        """Copy what the next event still needs out of the window."""
        cdef Py_ssize_t size = self._end - self._base
        if size == 0:
            self._release()
            return 0
        if self._base != self._kept:
            self._make_room(size)
            memmove(self._kept, self._base, size)
        self._kept_size = size
        self._base = self._kept
        self._end = self._kept + self._kept_size
        return 0

    cdef int _make_room(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t room = max(2 * self._kept_room, size)
        cdef byte *grown
        if size > self._kept_room:
            grown = <byte *>PyMem_Realloc(self._kept, room)
            if grown is NULL:
                raise MemoryError
            self._kept = grown
            self._kept_room = room
        return 0

    cdef void _release(self) noexcept:
        if self._kept is not NULL:
            PyMem_Free(self._kept)
            self._kept = NULL
            self._kept_size = self._kept_room = 0
        self._base = self._end = EMPTY

    cdef void reset(self) noexcept:
        """Forget what was fed: the next bytes begin a message."""
        self._release()
        self._start_message()

    cdef bint at_start(self) noexcept:
        """As after reset(): not even an empty line was seen."""
        return self._state == BEFORE and self._empty_lines == 0 and (
            self._end == self._base
        )

    cdef bint idle(self) noexcept:
        return (
            self._state == BEFORE or self._state == MESSAGE_DONE
        ) and self.unread() == 0

    cdef Py_ssize_t unread(self) noexcept:
        if self._state == HEAD_DONE or self._state == MESSAGE_DONE:
            return self._end - self._base - self._cursor
        return self._end - self._base

    cdef const byte *at(self, uint32_t offset) noexcept:
        return self._base + offset

    cdef object method(self):
        return method_name(
            self.at(self.head.method.start), self.head.method.size
        )

    cdef RequestHead copy_head(self):
        return self.copy_head_to(RequestHead.__new__(RequestHead))

    cdef RequestHead copy_head_to(self, RequestHead copy):
        copy._raw = PyBytes_FromStringAndSize(
            <const char *>self._base, self.head.size
        )
        copy._fields = PyBytes_FromStringAndSize(
            <const char *>self.head.fields, self.head.count * sizeof(Field)
        )
        copy._head = self.head
        copy._head.fields = <Field *>PyBytes_AS_STRING(copy._fields)
        copy._memo = self.memo
        return copy

    cdef int next_event(self) except -1:
        """One of Event; raises PeerError."""
        cdef Py_ssize_t size
        if self._state == HEAD_DONE or self._state == MESSAGE_DONE:
            # Only now may the window's head be given up.
            self._consume(self._cursor)
            if self._state == MESSAGE_DONE:
                self._start_message()
            elif self.head.chunked:
                self._state = CHUNK_SIZE
            elif self._remaining:
                self._state = BODY
            else:
                self._state = MESSAGE_DONE
                return END
        if self._state < HEAD_DONE:
            return self._parse_head()
        if self._state == BODY or self._state == CHUNK_DATA:
            if self._remaining:
                size = min(self._remaining, self._end - self._base)
                if size == 0:
                    return NEED_DATA
                self.data = self._base
                self.data_size = size
                self.body_size += size
                self._consume(size)
                self._remaining -= size
                return DATA
            if self._state == BODY:
                self._state = MESSAGE_DONE
                return END
            self._state = CHUNK_DATA_CR
        if self._state == FAILED:
            return self.refuse(400, "nothing can follow a broken request")
        return self._parse_chunked()

    cdef void _start_message(self) noexcept:
        self._state = BEFORE
        self._cursor = self._empty_lines = self._high = 0
        self._hosts = self._digits = 0
        self._chunked_seen = self._unknown_coding = False
        self._close_seen = False
        self._extension_bytes = self._consumed = 0
        self.body_size = self._remaining = 0
        self.head.count = 0
        self.head.content_length = -1
        self.head.chunked = self.head.expect_continue = False
        self.head.is_head = False

    cdef void _consume(self, Py_ssize_t size) noexcept:
        """Give the window's first bytes up; the cursor is at the next."""
        self._base += size
        self._consumed += size
        self._cursor = 0

    cdef int refuse(self, int status, str detail) except -1:
        cdef Py_ssize_t size = min(self._end - self._base, SHOWN_BYTES)
        cdef bytes data = PyBytes_FromStringAndSize(
            <const char *>self._base, size
        )
        self._state = FAILED
        self._end = self._base
        raise PeerError(
            status, detail, offset=self._consumed + self._cursor, data=data
        )

    cdef int _refuse_limit(self, int status, str what, str limit) except -1:
        return self.refuse(
            status,
            f"{what} {limit} ({getattr(self._config, limit)})"
        )

    cdef int _parse_head(self) except -1:
        cdef const byte *base = self._base
        cdef const byte *end = self._end
        cdef const byte *p = base + self._cursor
        cdef const byte *stop
        cdef const byte *version
        cdef uint32_t start
        cdef int at
        if self._state == BEFORE:
            while p < end and p[0] == c"\r":
                self._base = p
                if end - p < 2:
                    return NEED_DATA
                if p[1] != c"\n":
                    return self.refuse(400, "CR without LF")
                p += 2
                self._empty_lines += 1
                if self._empty_lines > MAX_EMPTY_LINES:
                    return self.refuse(400, "too many empty lines")
            self._base = base = p
            if p == end:
                return NEED_DATA
            self._state = METHOD
        # A fault beyond a limit is not seen, however the bytes were cut.
        stop = base + min(
            end - base, self._limit_line, self._limit_head
        )
        if self._state == METHOD:
            p = fh_token_end(p, stop)
            self._cursor = p - base
            if p == stop:
                return self._check_line(self._cursor)
            if p[0] != c" ":
                return self.refuse(400, "the method is not a token")
            if p == base:
                return self.refuse(400, "the method is empty")
            self.head.method = Span(0, <uint32_t>(p - base))
            p += 1
            self._state = TARGET
        if self._state == TARGET:
            p = fh_target_end(base, p, stop)
            self._cursor = p - base
            if p == stop:
                return self._check_line(self._cursor)
            if p[0] != c" ":
                return self.refuse(
                    400, "a byte that no request target may hold"
                )
            start = self.head.method.size + 1
            if p == base + start:
                return self.refuse(400, "the request target is empty")
            self.head.target = Span(start, <uint32_t>(p - base) - start)
            p += 1
            self._cursor = p - base
            self._state = VERSION
        if self._state == VERSION:
            # With HTTP/1.1 and, for the head, two CR LF.
            self._check_line(self._cursor + 7)
            self._check_head(self._cursor + 10)
            version = b"HTTP/1.1\r\n"
            if end - p < 10 or memcmp(p, version, 10) != 0:
                for at in range(10):
                    if p + at == end:
                        return NEED_DATA
                    if at == 5 or at == 7:
                        if not c"0" <= p[at] <= c"9":
                            return self.refuse(400, "not an HTTP version")
                    elif p[at] != version[at]:
                        if at < 8:
                            return self.refuse(400, "not an HTTP version")
                        return self.refuse(
                            400, "the request line does not end in CR LF"
                        )
                if p[5] != c"1":
                    return self.refuse(505, "only HTTP/1.x is spoken here")
            # RFC 9110 section 2.5: a higher minor version is read as ours.
            self.head.minor = 0 if p[7] == c"0" else 1
            self.head.keep_alive = self.head.minor > 0
            self.head.is_head = is_exactly(
                base, self.head.method.size, b"HEAD", 4
            )
            self._split_target()
            self._cursor += 10
            self._line = self._cursor
            self._state = FIELDS
        if not self._parse_fields():
            return NEED_DATA
        self._end_of_head()
        self._state = HEAD_DONE
        return HEAD

    cdef int _check_line(self, Py_ssize_t at) except -1:
        if at >= self._limit_line:
            return self._refuse_limit(
                414, "the request line is longer than", "limit_request_line"
            )
        return self._check_head(at)

    cdef int _check_head(self, Py_ssize_t at) except -1:
        if at >= self._limit_head:
            return self._refuse_limit(
                431, "the head is longer than", "limit_request_head"
            )
        return NEED_DATA

    cdef int _parse_fields(self) except -1:
        """Header or trailer fields up to the empty line; 1 when done."""
        cdef const byte *base = self._base
        # A fault beyond a limit is not seen, however the bytes were cut.
        cdef const byte *end = base + min(
            self._end - base, self._limit_head
        )
        cdef Cursor cursor = Cursor(
            base + self._line, base + self._cursor, self._high
        )
        cdef int first
        while True:
            if self.head.count == self._room:
                self._grow_fields()
            first = self.head.count
            self.head.count += read_lines(
                self.memo.names, base, end, self._limit_field_size,
                &cursor, self.head.fields + first, self._room - first
            )
            self.head.fields[self.head.count].name = <uint32_t>(
                cursor.line - base
            )
            self._take_fields(first)
            if self.head.count < self._room:
                return self._end_fields(&cursor, end)

    cdef int _take_fields(self, int first) except -1:
        """Act on new fields; behind the last one stands the next line."""
        cdef Field *field = self.head.fields + first
        cdef Field *end = self.head.fields + min(
            self.head.count, self._limit_fields
        )
        while field < end:
            if <unsigned>field.known < ACTED_ON and self._state == FIELDS:
                self._cursor = field[1].name
                self._act_on(field)
            field += 1
        if self.head.count > self._limit_fields:
            self._cursor = end[1].name
            return self._refuse_limit(
                431, "more header fields than", "limit_request_fields"
            )
        return 0

    cdef int _end_fields(
        self, const Cursor *cursor, const byte *end
    ) except -1:
        """1 for the empty line; else it is unfinished, or has a fault."""
        cdef const byte *base = self._base
        cdef const byte *line = cursor.line
        cdef const byte *p = cursor.p
        cdef const byte *colon
        cdef const byte *stop
        self._line = line - base
        self._cursor = p - base
        self._high = cursor.high
        if p < end and (p > line or p[0] != c"\r"):
            colon = fh_find(base, line, p, c":")
            stop = fh_token_end(line, colon)
            if stop < colon:
                return self._refuse_name(stop)
            # At a limit the line may still end, but not begin its value.
            if p == line + self._limit_field_size and (
                colon == p or p[0] != c"\r"
            ):
                return self._refuse_limit(
                    431, "a header field is longer than",
                    "limit_request_field_size"
                )
            if colon == p:
                return self._refuse_name(p)
            if colon == line:
                return self.refuse(400, "a field name is empty")
            if p[0] != c"\r":
                return self.refuse(
                    400, "LF without CR" if p[0] == c"\n"
                    else "a control byte in a field value"
                )
        if end - p < 2:
            # More bytes are needed, if a limit leaves room for them.
            return self._check_head(end - base)
        if p[1] != c"\n":
            return self.refuse(400, "CR without LF")
        self._cursor = p + 2 - base
        self.head.size = <uint32_t>self._cursor
        return 1

    cdef int _refuse_name(self, const byte *at) except -1:
        self._cursor = at - self._base
        return self.refuse(
            400, "white space in or before a field name"
            if at[0] == c" " or at[0] == c"\t"
            else "a byte that no field name may hold"
        )

    cdef int _act_on(self, Field *field) except -1:
        if field.known == HOST:
            self._hosts += 1
            if self._hosts > 1:
                return self.refuse(400, "more than one Host field")
            return self._check_host(
                self._base + field.value, field.value_size
            )
        if field.known == CONTENT_LENGTH:
            return self._parse_content_length(field)
        if field.known == TRANSFER_ENCODING:
            return self._parse_transfer_encoding(field)
        if field.known == CONNECTION:
            return self._parse_connection(field)
        # RFC 9110 section 10.1.1: 1.0 cannot have meant it.
        if self.head.minor:
            if not is_word(
                self._base + field.value, field.value_size,
                b"100-continue", 12
            ):
                return self.refuse(417, "only 100-continue can be expected")
            self.head.expect_continue = True
        return 0

    cdef int _grow_fields(self) except -1:
        cdef int room = 2 * self._room if self._room else FIRST_FIELDS
        cdef Field *grown = <Field *>PyMem_Realloc(
            self.head.fields, (room + 1) * sizeof(Field)
        )
        if grown is NULL:
            raise MemoryError
        self.head.fields = grown
        self._room = room
        return 0

    cdef int _check_host(self, const byte *p, Py_ssize_t size) except -1:
        cdef FieldMemo memo = self.memo
        # Most clients ask for one: 20 instructions in place of 120.
        if size != memo.host_size or memcmp(p, memo.host, size) != 0:
            if not is_host(p, size):
                return self.refuse(400, "the Host is not host[:port]")
            if size <= MEMO_HOST:
                memcpy(memo.host, p, size)
                memo.host_size = size
        return 0

    cdef int _parse_content_length(self, Field *field) except -1:
        cdef const byte *p = self._base + field.value
        cdef long long length = 0
        cdef uint32_t i
        # RFC 9112 section 6.3 allows to take equal repeats; we take none.
        if self.head.content_length >= 0:
            return self.refuse(400, "more than one Content-Length field")
        if field.value_size == 0:
            return self.refuse(400, "Content-Length is empty")
        for i in range(field.value_size):
            if not c"0" <= p[i] <= c"9":
                return self.refuse(400, "Content-Length is not a number")
            if length > LLONG_MAX // 10 - 1:
                return self._refuse_body()
            length = length * 10 + (p[i] - c"0")
        self.head.content_length = length
        return 0

    cdef int _parse_transfer_encoding(self, Field *field) except -1:
        if not self.head.minor:
            return self.refuse(400, "Transfer-Encoding in HTTP/1.0")
        if self._chunked_seen:
            return self.refuse(400, "chunked is not the last coding")
        if field.value_size == 0:
            return self.refuse(400, "Transfer-Encoding is empty")
        # A list, even with empty members, is read differently by others.
        if is_word(
            self._base + field.value, field.value_size, b"chunked", 7
        ):
            self._chunked_seen = True
        else:
            self._unknown_coding = True
        return 0

    cdef int _parse_connection(self, Field *field) except -1:
        cdef const byte *p = self._base + field.value
        cdef const byte *end = p + field.value_size
        cdef const byte *start
        cdef const byte *stop
        while p < end:
            start = p
            p = fh_find(self._base, p, end, c",")
            stop = trim(&start, p)
            p += 1
            if is_word(start, stop - start, b"close", 5):
                self._close_seen = True
            elif is_word(start, stop - start, b"keep-alive", 10):
                self.head.keep_alive = True
        return 0

    cdef int _split_target(self) except -1:
        """RFC 9112 section 3.2: which of the four forms, and its parts."""
        cdef const byte *base = self._base
        cdef const byte *start = base + self.head.target.start
        cdef const byte *end = start + self.head.target.size
        cdef const byte *p = start
        cdef const byte *question
        self.head.is_connect = is_exactly(
            base, self.head.method.size, b"CONNECT", 7
        )
        self.head.has_root = False
        self.head.authority = Span(self.head.target.start, 0)
        self.head.path = self.head.query = self.head.authority
        if fh_find(base, start, end, c"#") < end:
            return self.refuse(400, "a fragment in the request target")
        if self.head.is_connect:
            if not is_host_and_port(start, end - start):
                return self.refuse(400, "CONNECT wants host:port")
            self.head.authority = self.head.target
            return 0
        if is_exactly(start, end - start, b"*", 1):
            if not is_exactly(base, self.head.method.size, b"OPTIONS", 7):
                return self.refuse(400, "* is a target for OPTIONS only")
            return 0
        if p[0] != c"/":
            if end - p > 7 and is_word(p, 7, b"http://", 7):
                p += 7
            elif end - p > 8 and is_word(p, 8, b"https://", 8):
                p += 8
            else:
                return self.refuse(
                    400, "the request target has none of the four forms"
                )
            start = p
            while p < end and p[0] != c"/" and p[0] != c"?":
                p += 1
            if p == start or not is_host(start, p - start):
                return self.refuse(400, "the target's authority is no host")
            self.head.authority = Span(
                <uint32_t>(start - base), <uint32_t>(p - start)
            )
        question = fh_find(base, p, end, c"?")
        # RFC 9110 section 4.2.3, RFC 9112 section 3.2.4
        self.head.has_root = self.head.authority.size > 0 and not (
            question == end
            and is_exactly(base, self.head.method.size, b"OPTIONS", 7)
        )
        self.head.path = Span(
            <uint32_t>(p - base), <uint32_t>(question - p)
        )
        if question < end:
            self.head.query = Span(
                <uint32_t>(question + 1 - base),
                <uint32_t>(end - question - 1),
            )
        return 0

    cdef int _end_of_head(self) except -1:
        """Check what only the whole head can tell."""
        if self._hosts == 0 and self.head.minor:
            return self.refuse(400, "no Host field")
        if self._close_seen:
            self.head.keep_alive = False
        if self._unknown_coding:
            return self.refuse(501, "the only transfer coding is chunked")
        if self._chunked_seen:
            # RFC 9112 section 6.3: possible request smuggling.
            if self.head.content_length >= 0:
                return self.refuse(
                    400, "both Transfer-Encoding and Content-Length"
                )
            self.head.chunked = True
        elif self.head.content_length > 0:
            self._remaining = self.head.content_length
            if self._remaining > self._limit_body:
                return self._refuse_body()
        return 0

    cdef int _refuse_body(self) except -1:
        return self._refuse_limit(
            413, "the body is longer than", "limit_request_body"
        )

    cdef int _parse_chunked(self) except -1:
        """Chunk lines and trailers (RFC 9112 section 7.1)."""
        cdef const byte *p = self._base
        cdef byte c
        while self._state < TRAILERS:
            self._cursor = p - self._base
            if p == self._end:
                self._consume(self._cursor)
                return NEED_DATA
            c = p[0]
            p += 1
            if self._state == CHUNK_SIZE:
                self._take_size(c)
            elif EXTENSION <= self._state <= AFTER_QUOTED:
                self._take_extension(c)
            elif self._state == CHUNK_LINE_LF:
                if c != c"\n":
                    return self.refuse(400, "CR without LF")
                self._digits = 0
                if self._remaining > self._limit_body - self.body_size:
                    return self._refuse_body()
                self._consume(p - self._base)
                if self._remaining:
                    self._state = CHUNK_DATA
                    return self.next_event()
                self._line = self.head.count = 0
                self._state = TRAILERS
            elif self._state == CHUNK_DATA_CR:
                if c != c"\r":
                    return self.refuse(400, "a chunk does not end in CR LF")
                self._state = CHUNK_DATA_LF
            elif self._state == CHUNK_DATA_LF:
                if c != c"\n":
                    return self.refuse(400, "a chunk does not end in CR LF")
                self._state = CHUNK_SIZE
        if not self._parse_fields():
            return NEED_DATA
        self._state = MESSAGE_DONE
        return END

    cdef int _take_size(self, byte c) except -1:
        cdef int digit
        digit = fh_hex_value(c)
        if digit < 0 and self._digits == 0:
            return self.refuse(400, "a chunk has no size")
        if digit < 0:
            return self._end_of_element(c)
        # Sixteen would not fit 63 bits; a long row of zeros is no size.
        self._digits += 1
        if self._digits > 15:
            return self.refuse(400, "a chunk size of more than 15 digits")
        self._remaining = self._remaining * 16 + digit
        return 0

    cdef int _end_of_element(self, byte c) except -1:
        if c == c"\r":
            self._state = CHUNK_LINE_LF
        elif c == c";":
            self._state = EXTENSION
            self._count_extension()
        else:
            return self.refuse(400, "a byte that a chunk size may not hold")
        return 0

    cdef int _count_extension(self) except -1:
        self._extension_bytes += 1
        if self._extension_bytes > self._limit_extensions:
            return self._refuse_limit(
                413, "the chunk extensions are longer than",
                "limit_chunk_extensions"
            )
        return 0

    cdef int _take_extension(self, byte c) except -1:
        """*( ";" token [ "=" ( token / quoted-string ) ] ), no spaces."""
        if (
            self._state == EXTENSION_NAME or self._state == EXTENSION_TOKEN
            or self._state == AFTER_QUOTED
        ) and (c == c"\r" or c == c";"):
            return self._end_of_element(c)
        self._count_extension()
        if self._state == EXTENSION and fh_tchar[c]:
            self._state = EXTENSION_NAME
        elif (
            self._state == EXTENSION_NAME or self._state == EXTENSION_TOKEN
        ) and fh_tchar[c]:
            pass
        elif self._state == EXTENSION_NAME and c == c"=":
            self._state = EXTENSION_VALUE
        elif self._state == EXTENSION_VALUE and c == c'"':
            self._state = QUOTED
        elif self._state == EXTENSION_VALUE and fh_tchar[c]:
            self._state = EXTENSION_TOKEN
        elif self._state == QUOTED and c == c'"':
            self._state = AFTER_QUOTED
        elif self._state == QUOTED and c == c"\\":
            self._state = QUOTED_PAIR
        elif (self._state == QUOTED or self._state == QUOTED_PAIR) and (
            c == c"\t" or (c >= 0x20 and c != 0x7f)
        ):
            self._state = QUOTED
        else:
            return self.refuse(
                400, "a byte that a chunk extension may not hold"
            )
        return 0


# RFC 3986 section 3.2.2: unreserved / sub-delims.
cdef unsigned char REG_NAME[256]
for _c in range(256):
    REG_NAME[_c] = chr(_c).isascii() and (
        chr(_c).isalnum() or chr(_c) in "-._~!$&'()*+,;="
    )


cdef bint is_host(const byte *p, Py_ssize_t size) noexcept:
    """RFC 9110 section 7.2: uri-host [":" port], or nothing at all."""
    cdef const byte *end = p + size
    cdef const byte *host = p
    if p < end and p[0] == c"[":
        p = fh_find(host, p, end, c"]")
        if p == end or not is_ipv6(host + 1, p - host - 1):
            return False
        p += 1
    else:
        while True:
            p = fh_skip(p, end, REG_NAME)
            if p == end or p[0] != c"%":
                break
            if (
                end - p < 3
                or fh_hex_value(p[1]) < 0 or fh_hex_value(p[2]) < 0
            ):
                return False
            p += 3
    if p == end:
        return True
    # RFC 9110 section 4.2.1: no port without a host.
    if p == host or p[0] != c":":
        return False
    p += 1
    while p < end and c"0" <= p[0] <= c"9":
        p += 1
    return p == end


cdef bint is_ipv6(const byte *p, Py_ssize_t size) noexcept:
    cdef char text[46]
    cdef unsigned char address[16]
    if size >= <Py_ssize_t>sizeof(text):
        return False
    memcpy(text, p, size)
    text[size] = 0
    return inet_pton(AF_INET6, text, address) == 1


cdef bint is_host_and_port(const byte *p, Py_ssize_t size) noexcept:
    """RFC 9112 section 3.2.3: neither may be empty."""
    cdef Py_ssize_t colon = size
    while colon and c"0" <= p[colon - 1] <= c"9":
        colon -= 1
    return 1 < colon < size and p[colon - 1] == c":" and is_host(p, size)
