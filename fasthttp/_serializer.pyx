"""Responses as bytes; the one place that refuses what would break framing.

Whatever an application hands over is checked here: a CR, LF, NUL or other
control byte, a name that is no token or a status that is none raises
AppError, and nothing of that response reaches the wire.

All connections of a loop share one serializer, so a head is written without
running anybody's Python code, which could write another into it: no method
of a subclass of str or int is called, and nothing is made that could start a
collection of garbage, and with it finalizers.
"""
cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
)
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.string cimport memcpy
from libc.time cimport gmtime_r, time, time_t, tm

from http import HTTPStatus

from fasthttp.errors import AppError

cdef extern from "Python.h":
    bint PyUnicode_Check(object)
    bint PyUnicode_CheckExact(object)
    Py_ssize_t PyTuple_GET_SIZE(object)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)
    bint PyLong_Check(object)
    long PyLong_AsLongAndOverflow(object, int *) except? -1
    # Of a pointer: as an object it would be held once more while counted.
    Py_ssize_t Py_REFCNT(PyObject *)
    int PyUnicode_KIND(object)
    const char *PyUnicode_DATA "(const char *)PyUnicode_DATA" (object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)

cdef extern from "_scan.h":
    ctypedef unsigned char byte "fh_byte"
    const byte *fh_token_end(const byte *, const byte *) noexcept
    const byte *fh_value_end(
        const byte *, const byte *, const byte *, int *
    ) noexcept

cdef enum:
    FIRST_ROOM = 1024
    DATE_SIZE = 37
    # Date, Content-Length of 19 digits, Transfer-Encoding, Connection
    OWN_FIELDS = 128

# Fields of the application's that change what is written besides.
cdef enum:
    SEEN_DATE = 1
    SEEN_SERVER = 2
    SEEN_LENGTH = 4
    SEEN_CLOSE = 8

cdef dict STATUS_LINES = {
    int(status): f"{int(status)} {status.phrase}" for status in HTTPStatus
}
cdef const char *DAYS = b"SunMonTueWedThuFriSat"
cdef const char *MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"
cdef const char *HEX = b"0123456789abcdef"


# RFC 9110 section 7.6.1 and PEP 3333: hop-by-hop fields are not the
# application's to set; of Connection, its options are read.
cdef dict ROLES = {
    b"date": DATE,
    b"server": SERVER,
    b"content-length": CONTENT_LENGTH,
    b"connection": CONNECTION,
    b"keep-alive": HOP_BY_HOP,
    b"proxy-connection": HOP_BY_HOP,
    b"transfer-encoding": HOP_BY_HOP,
}


cdef Role role_of(object name) except? NO_ROLE:
    cdef const byte *text
    cdef Py_ssize_t size
    if not PyUnicode_Check(name):
        raise AppError(f"a header name that is not a str: {name!r}")
    text = <const byte *>PyUnicode_DATA(name)
    size = PyUnicode_GET_LENGTH(name)
    if PyUnicode_KIND(name) != 1 or size == 0 or (
        fh_token_end(text, text + size) != text + size
    ):
        raise AppError(f"not a header name: {name!r}")
    return ROLES.get(text[:size].lower(), PLAIN)


@cython.final
cdef class ResponseSerializer:
    def __cinit__(self):
        self._server = b""
        self._second = -1

    def __init__(self, str server="fasthttp"):
        if not server.isascii() or not server.isprintable():
            raise ValueError(f"not a Server field: {server!r}")
        self._server = f"Server: {server}\r\n".encode() if server else b""

    def __dealloc__(self):
        cdef int slot
        PyMem_Free(self.data)
        for slot in range(KNOWN_SLOTS):
            self._forget(&self._known[slot])

    def head(
        self, status, headers, *, str version="1.1", str method="GET",
        bint keep_alive=True, length=None
    ):
        self.write_head(
            status, list(headers), version != "1.0", method == "HEAD",
            keep_alive, -1 if length is None else length
        )
        return PyBytes_FromStringAndSize(self.data, self.size)

    cdef int write_head(
        self, object status, list headers, int minor, bint is_head,
        bint keep_alive, long long length,
    ) except -1:
        """Begin with status line and fields; decide framing, persistence.

        `length` is the body's size where it is known, else -1.
        """
        cdef int seen = 0
        cdef bint bodiless
        cdef char *to
        self.size = 0
        self._write_status(status)
        for field in headers:
            self._write_field(field, &seen)
        to = self._reserve(PyBytes_GET_SIZE(self._server) + OWN_FIELDS)
        if not seen & SEEN_SERVER:
            to = put(
                to, PyBytes_AS_STRING(self._server),
                PyBytes_GET_SIZE(self._server)
            )
        if not seen & SEEN_DATE:
            to = put(to, self._date_field(), DATE_SIZE)
        # RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5
        bodiless = self.status in (204, 205, 304)
        if self.status == 205:
            self.length = 0
            to = put_length(to, 0)
        elif seen & SEEN_LENGTH:
            if self.status != 204:
                to = put_length(to, self.length)
        else:
            self.length = length
            if length >= 0 and not bodiless:
                to = put_length(to, length)
        if bodiless or is_head:
            self.framing = NO_BODY
        elif self.length >= 0:
            self.framing = LENGTH
        elif minor:
            self.framing = CHUNKED
            to = put(to, b"Transfer-Encoding: chunked\r\n", 28)
        else:
            self.framing = UNTIL_CLOSE
            keep_alive = False
        self.keep_alive = keep_alive and not seen & SEEN_CLOSE
        if not self.keep_alive:
            to = put(to, b"Connection: close\r\n", 19)
        elif not minor:
            to = put(to, b"Connection: keep-alive\r\n", 24)
        self.size = put(to, b"\r\n", 2) - self.data
        return 0

    cdef int write_chunk_size(self, Py_ssize_t size) except -1:
        cdef char text[18]
        cdef int at = 16
        text[16] = c"\r"
        text[17] = c"\n"
        while True:
            at -= 1
            text[at] = HEX[size & 15]
            size >>= 4
            if size == 0:
                break
        return self.append(text + at, 18 - at)

    cdef int append(self, const char *data, Py_ssize_t size) except -1:
        memcpy(self._reserve(size), data, size)
        self.size += size
        return 0

    cdef char *_reserve(self, Py_ssize_t size) except NULL:
        cdef Py_ssize_t room
        cdef char *grown
        if self.size + size > self._room:
            room = max(2 * self._room, self.size + size, FIRST_ROOM)
            grown = <char *>PyMem_Realloc(self.data, room)
            if grown is NULL:
                raise MemoryError
            self.data = grown
            self._room = room
        return self.data + self.size

    cdef int _write_status(self, object status) except -1:
        cdef Py_ssize_t size
        cdef const char *text
        cdef int overflow = 0
        cdef long number
        cdef bytes line
        if PyLong_Check(status):
            number = PyLong_AsLongAndOverflow(status, &overflow)
            status = STATUS_LINES.get(number) or f"{number} "
        if status is self._last_status and status is not None:
            self.status = self._last_code
            return self.append(
                PyBytes_AS_STRING(self._status_line),
                PyBytes_GET_SIZE(self._status_line)
            )
        if not PyUnicode_Check(status):
            raise AppError(f"the status is not a str: {status!r}")
        size = PyUnicode_GET_LENGTH(status)
        text = PyUnicode_DATA(status)
        if (
            PyUnicode_KIND(status) != 1 or size < 4 or text[3] != c" "
            or not c"2" <= text[0] <= c"5" or not c"0" <= text[1] <= c"9"
            or not c"0" <= text[2] <= c"9" or not is_clean(text, size)
        ):
            raise AppError(f"not a final status such as '200 OK': {status!r}")
        self.status = (
            (text[0] - c"0") * 100 + (text[1] - c"0") * 10 + text[2] - c"0"
        )
        line = b"HTTP/1.1 %b\r\n" % text[:size]
        if PyUnicode_CheckExact(status):
            self._last_status = status
            self._last_code = self.status
            self._status_line = line
        return self.append(PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))

    cdef int _write_field(self, object field, int *seen) except -1:
        cdef PyObject *name
        cdef PyObject *value
        cdef Line *known
        cdef size_t slot
        cdef const char *text
        cdef Py_ssize_t start, size
        cdef char *to
        cdef Role role
        if type(field) is not tuple or PyTuple_GET_SIZE(field) != 2:
            raise AppError(f"not a (name, value) tuple: {field!r}")
        name = PyTuple_GET_ITEM(field, 0)
        value = PyTuple_GET_ITEM(field, 1)
        slot = (<size_t>name >> 4) % KNOWN_SLOTS
        known = &self._known[slot]
        if known.name != name:
            known = &self._known[slot ^ 1]
        if known.name == name:
            if known.value == value:
                memcpy(self._reserve(KNOWN_LINE), known.line, KNOWN_LINE)
                self.size += known.size
                return 0
            role = known.role
        else:
            known = &self._known[slot]
            role = self._learn_name(slot, <object>name)
        if not PyUnicode_Check(<object>value) or (
            PyUnicode_KIND(<object>value) != 1
        ):
            return self._refuse_value(field)
        text = PyUnicode_DATA(<object>value)
        size = PyUnicode_GET_LENGTH(<object>value)
        if not is_clean(text, size):
            return self._refuse_value(field)
        if role != PLAIN and self._act_on(role, text, size, seen):
            return 0
        start = self.size
        to = self._reserve(
            PyUnicode_GET_LENGTH(<object>name) + size + 4
        )
        to = put(
            to, PyUnicode_DATA(<object>name),
            PyUnicode_GET_LENGTH(<object>name)
        )
        to = put(to, b": ", 2)
        to = put(to, text, size)
        self.size = put(to, b"\r\n", 2) - self.data
        # Others hold it too (the loop and a list are two): it comes again.
        if role == PLAIN and known.name == name and (
            Py_REFCNT(<PyObject *>field) > 2 or Py_REFCNT(value) > 1
        ):
            self._learn_value(known, <object>value, start)
        return 0

    cdef int _refuse_value(self, object field) except -1:
        raise AppError(
            f"the header {field[0]} has a value that is no str, or has a "
            f"control or a character outside latin-1: {field[1]!r}"
        )

    cdef Role _learn_name(self, size_t slot, object name) except? NO_ROLE:
        """Check a name; applications pass the same objects again and again.

        Measured: 150 instructions for a name such as Content-Type, 10 when
        it is known by its identity. The table holds a reference to each. Who
        had the slot moves into its neighbour: of eight names, two have one in
        common in every third process.
        """
        cdef Role role = role_of(name)
        cdef Line *known = &self._known[slot]
        if PyUnicode_CheckExact(name) and len(name) <= KNOWN_LINE:
            self._forget(&self._known[slot ^ 1])
            self._known[slot ^ 1] = known[0]
            known.value = NULL
            Py_INCREF(name)
            known.name = <PyObject *>name
            known.role = role
        return role

    cdef int _learn_value(
        self, Line *known, object value, Py_ssize_t start
    ) except -1:
        """Keep the line made of a name and a value.

        Measured: 140 instructions for a field, 30 for a line that is known.
        """
        cdef Py_ssize_t size = self.size - start
        if size <= KNOWN_LINE and PyUnicode_CheckExact(value):
            Py_XDECREF(known.value)
            Py_INCREF(value)
            known.value = <PyObject *>value
            known.size = size
            memcpy(known.line, self.data + start, size)
        return 0

    cdef void _forget(self, Line *known) noexcept:
        Py_XDECREF(known.name)
        Py_XDECREF(known.value)
        known.name = known.value = NULL

    cdef bint _act_on(
        self, Role role, const char *text, Py_ssize_t size, int *seen
    ) except -1:
        """Do what a field means for the server; True: it is not sent."""
        if role == DATE:
            seen[0] |= SEEN_DATE
            return False
        if role == SERVER:
            seen[0] |= SEEN_SERVER
            return False
        if role == CONTENT_LENGTH:
            self._take_length(text, size, seen)
        elif role == CONNECTION:
            options = b",%b," % text[:size].lower().translate(None, b" \t")
            if b",close," in options:
                seen[0] |= SEEN_CLOSE
            if b",upgrade," in options:
                self.append(b"Connection: upgrade\r\n", 21)
        return True

    cdef int _take_length(
        self, const char *text, Py_ssize_t size, int *seen
    ) except -1:
        cdef long long length = 0
        cdef Py_ssize_t i
        if not 0 < size < 19:
            raise AppError("a Content-Length without 1 to 18 digits")
        for i in range(size):
            if not c"0" <= text[i] <= c"9":
                raise AppError("a Content-Length that is not a number")
            length = length * 10 + text[i] - c"0"
        if seen[0] & SEEN_LENGTH and length != self.length:
            raise AppError("two different Content-Length fields")
        seen[0] |= SEEN_LENGTH
        self.length = length
        return 0

    cdef const char *_date_field(self) noexcept:
        """RFC 9110 section 5.6.7: IMF-fixdate, made once a second."""
        cdef time_t now = time(NULL)
        cdef tm parts
        cdef char *to = self._date
        if now != self._second:
            gmtime_r(&now, &parts)
            memcpy(to, b"Date: ", 6)
            memcpy(to + 6, DAYS + 3 * parts.tm_wday, 3)
            memcpy(to + 9, b", ", 2)
            two_digits(to + 11, parts.tm_mday, c" ")
            memcpy(to + 14, MONTHS + 3 * parts.tm_mon, 3)
            to[17] = c" "
            two_digits(to + 18, (parts.tm_year + 1900) // 100, c" ")
            two_digits(to + 20, parts.tm_year % 100, c" ")
            two_digits(to + 23, parts.tm_hour, c":")
            two_digits(to + 26, parts.tm_min, c":")
            two_digits(to + 29, parts.tm_sec, c" ")
            memcpy(to + 32, b"GMT\r\n", 5)
            self._second = now
        return to


cdef inline bint is_clean(const char *text, Py_ssize_t size) noexcept:
    """Without a control but HTAB (RFC 9110 section 5.5)."""
    cdef const byte *p = <const byte *>text
    cdef int high = 0
    return fh_value_end(p, p, p + size, &high) == p + size


cdef inline char *put(char *to, const char *data, Py_ssize_t size) noexcept:
    memcpy(to, data, size)
    return to + size


cdef inline char *put_length(char *to, long long value) noexcept:
    cdef char text[20]
    cdef int at = 20
    while True:
        at -= 1
        text[at] = <char>(c"0" + value % 10)
        value //= 10
        if value == 0:
            break
    to = put(to, b"Content-Length: ", 16)
    to = put(to, text + at, 20 - at)
    return put(to, b"\r\n", 2)


cdef inline void two_digits(char *to, int value, char after) noexcept:
    to[0] = <char>(c"0" + value // 10)
    to[1] = <char>(c"0" + value % 10)
    to[2] = after
