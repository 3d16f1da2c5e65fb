"""Responses as bytes; the one place that refuses what would break framing.

Whatever an application hands over is checked here: a CR, LF, NUL or other
control byte, a name that is no token or a status that is none raises
AppError, and nothing of that response reaches the wire.
"""
cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
)
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy
from libc.time cimport gmtime_r, time, time_t, tm

from http import HTTPStatus

from fasthttp.errors import AppError

cdef extern from "Python.h":
    bint PyUnicode_Check(object)
    bint PyUnicode_CheckExact(object)
    Py_ssize_t PyTuple_GET_SIZE(object)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)
    void Py_INCREF(object)
    void Py_XDECREF(PyObject *)
    int PyUnicode_KIND(object)
    const char *PyUnicode_DATA "(const char *)PyUnicode_DATA" (object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)

cdef extern from "_scan.h":
    ctypedef unsigned char byte "fh_byte"
    const byte *fh_token_end(const byte *, const byte *) noexcept
    const byte *fh_value_end(const byte *, const byte *, int *) noexcept

cdef enum:
    FIRST_ROOM = 1024
    DATE_SIZE = 37

    KNOWN_LENGTH = 64

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
    "date": DATE,
    "server": SERVER,
    "content-length": CONTENT_LENGTH,
    "connection": CONNECTION,
    "keep-alive": HOP_BY_HOP,
    "proxy-connection": HOP_BY_HOP,
    "transfer-encoding": HOP_BY_HOP,
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
    return ROLES.get(name.lower(), PLAIN)


@cython.final
cdef class ResponseSerializer:
    def __cinit__(self):
        self.server = b""
        self._second = -1

    def __init__(self, str server="fasthttp"):
        if not server.isascii() or not server.isprintable():
            raise ValueError(f"not a Server field: {server!r}")
        self.server = f"Server: {server}\r\n".encode() if server else b""

    def __dealloc__(self):
        cdef int slot
        PyMem_Free(self.data)
        for slot in range(KNOWN_SLOTS):
            Py_XDECREF(self._known[slot])

    def head(
        self, status, headers, *, str version="1.1", str method="GET",
        bint keep_alive=True, length=None
    ):
        self.size = 0
        self.write_head(
            status, headers, version != "1.0", method == "HEAD", keep_alive,
            -1 if length is None else length
        )
        return PyBytes_FromStringAndSize(self.data, self.size)

    def chunk(self, bytes data not None):
        self.size = 0
        if data:
            self.write_chunk_size(len(data))
            self.append(PyBytes_AS_STRING(data), len(data))
            self.append(b"\r\n", 2)
        return PyBytes_FromStringAndSize(self.data, self.size)

    def last_chunk(self):
        return b"0\r\n\r\n"

    cdef int write_head(
        self, object status, object headers, int minor, bint is_head,
        bint keep_alive, long long length,
    ) except -1:
        """Append status line and fields; decide framing and persistence.

        `length` is the body's size where it is known, else -1.
        """
        cdef int seen = 0
        cdef Py_ssize_t start = self.size
        cdef bint bodiless
        try:
            self._write_status(status)
            for field in headers:
                self._write_field(field, &seen)
        except BaseException:
            self.size = start
            raise
        if not seen & SEEN_SERVER:
            self.append(
                PyBytes_AS_STRING(self.server), PyBytes_GET_SIZE(self.server)
            )
        if not seen & SEEN_DATE:
            self._write_date()
        # RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5
        bodiless = self.status in (204, 205, 304)
        if self.status == 205:
            self.length = 0
            self._write_number(b"Content-Length: ", 0)
        elif seen & SEEN_LENGTH:
            if self.status != 204:
                self._write_number(b"Content-Length: ", self.length)
        else:
            self.length = length
            if length >= 0 and not bodiless:
                self._write_number(b"Content-Length: ", length)
        if bodiless or is_head:
            self.framing = NO_BODY
        elif self.length >= 0:
            self.framing = LENGTH
        elif minor:
            self.framing = CHUNKED
            self.append(b"Transfer-Encoding: chunked\r\n", 28)
        else:
            self.framing = UNTIL_CLOSE
            keep_alive = False
        self.keep_alive = keep_alive and not seen & SEEN_CLOSE
        if not self.keep_alive:
            self.append(b"Connection: close\r\n", 19)
        elif not minor:
            self.append(b"Connection: keep-alive\r\n", 24)
        return self.append(b"\r\n", 2)

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
        cdef int high = 0
        if status is self._last_status and status is not None:
            self.status = self._last_code
            return self.append(
                PyBytes_AS_STRING(self._status_line),
                PyBytes_GET_SIZE(self._status_line)
            )
        self._last_status = None
        if isinstance(status, int):
            status = STATUS_LINES.get(status, f"{status} ")
        elif not isinstance(status, str):
            raise AppError(f"the status is not a str: {status!r}")
        size = PyUnicode_GET_LENGTH(status)
        text = PyUnicode_DATA(status)
        if (
            PyUnicode_KIND(status) != 1 or size < 4 or text[3] != c" "
            or not c"2" <= text[0] <= c"5" or not c"0" <= text[1] <= c"9"
            or not c"0" <= text[2] <= c"9"
            or fh_value_end(
                <const byte *>text, <const byte *>text + size, &high
            ) != <const byte *>text + size
        ):
            raise AppError(f"not a final status such as '200 OK': {status!r}")
        self.status = (
            (text[0] - c"0") * 100 + (text[1] - c"0") * 10 + text[2] - c"0"
        )
        self._last_status = status
        self._last_code = self.status
        self._status_line = b"HTTP/1.1 %b\r\n" % text[:size]
        return self.append(
            PyBytes_AS_STRING(self._status_line),
            PyBytes_GET_SIZE(self._status_line)
        )

    cdef int _write_field(self, object field, int *seen) except -1:
        cdef PyObject *name
        cdef object value
        cdef const char *text
        cdef Py_ssize_t name_size, size
        cdef char *to
        cdef int high = 0
        cdef Role role
        if type(field) is not tuple or PyTuple_GET_SIZE(field) != 2:
            raise AppError(f"not a (name, value) tuple: {field!r}")
        name = PyTuple_GET_ITEM(field, 0)
        value = (<tuple>field)[1]
        role = self._role_of(name)
        if not PyUnicode_Check(value) or PyUnicode_KIND(value) != 1:
            return self._refuse_value(field)
        text = PyUnicode_DATA(value)
        size = PyUnicode_GET_LENGTH(value)
        if fh_value_end(
            <const byte *>text, <const byte *>text + size, &high
        ) != <const byte *>text + size:
            return self._refuse_value(field)
        if role != PLAIN and self._act_on(role, value, text, size, seen):
            return 0
        name_size = PyUnicode_GET_LENGTH(<object>name)
        to = self._reserve(name_size + size + 4)
        memcpy(to, PyUnicode_DATA(<object>name), name_size)
        to += name_size
        to[0] = c":"
        to[1] = c" "
        memcpy(to + 2, text, size)
        to += size + 2
        to[0] = c"\r"
        to[1] = c"\n"
        self.size += name_size + size + 4
        return 0

    cdef int _refuse_value(self, object field) except -1:
        raise AppError(
            f"the header {field[0]} has a value that is no str, or has a "
            f"control or a character outside latin-1: {field[1]!r}"
        )

    cdef Role _role_of(self, PyObject *name) except? NO_ROLE:
        """Check a name; applications pass the same objects again and again.

        Measured: 150 instructions for a name such as Content-Type, 10 when
        it is known by its identity. The table holds a reference to each.
        """
        cdef size_t slot = (<size_t>name >> 4) % KNOWN_SLOTS
        cdef object text
        cdef Role role
        if self._known[slot] == name:
            return self._roles[slot]
        text = <object>name
        role = role_of(text)
        if PyUnicode_CheckExact(text) and len(text) <= KNOWN_LENGTH:
            Py_XDECREF(self._known[slot])
            Py_INCREF(text)
            self._known[slot] = name
            self._roles[slot] = role
        return role

    cdef bint _act_on(
        self, Role role, object value, const char *text, Py_ssize_t size,
        int *seen
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
            for option in value.lower().split(","):
                if option.strip() == "close":
                    seen[0] |= SEEN_CLOSE
                elif option.strip() == "upgrade":
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

    cdef int _write_number(self, const char *name, long long value) except -1:
        cdef char text[40]
        cdef int at = 38
        text[38] = c"\r"
        text[39] = c"\n"
        while True:
            at -= 1
            text[at] = <char>(c"0" + value % 10)
            value //= 10
            if value == 0:
                break
        at -= 16
        memcpy(text + at, name, 16)
        return self.append(text + at, 40 - at)

    cdef int _write_date(self) except -1:
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
        return self.append(self._date, DATE_SIZE)


cdef inline void two_digits(char *to, int value, char after) noexcept:
    to[0] = <char>(c"0" + value // 10)
    to[1] = <char>(c"0" + value % 10)
    to[2] = after
