"""Responses as bytes; the one place that refuses what would break framing.

Whatever an application hands over is checked here: a CR, LF, NUL or other
control byte, a name that is no token or a status that is none raises
AppError, and nothing of that response reaches the wire.
"""
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


cdef inline bint is_name(
    const char *name, Py_ssize_t size, const char *lower, Py_ssize_t length
) noexcept:
    cdef Py_ssize_t i
    if size != length:
        return False
    for i in range(size):
        if (name[i] | (0x20 if lower[i] >= c"a" else 0)) != lower[i]:
            return False
    return True


cdef class ResponseSerializer:
    def __cinit__(self, str server="fasthttp"):
        self.server = f"Server: {server}\r\n".encode() if server else b""
        self._second = -1

    def __dealloc__(self):
        PyMem_Free(self.data)

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

    def chunk(self, bytes data):
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
        # RFC 9110 sections 6.4.1, 15.3.6 and 15.4.5
        bodiless = self.status < 200 or self.status in (204, 205, 304)
        if self.status == 205:
            self.length = 0
            self._write_number(b"Content-Length: ", 0)
        elif seen & SEEN_LENGTH:
            if self.status >= 200 and self.status != 204:
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
        if self.status >= 200:
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
        if isinstance(status, int):
            status = STATUS_LINES.get(status, f"{status} ")
        elif not isinstance(status, str):
            raise AppError(f"the status is not a str: {status!r}")
        size = PyUnicode_GET_LENGTH(status)
        text = PyUnicode_DATA(status)
        if (
            PyUnicode_KIND(status) != 1 or size < 4 or text[3] != c" "
            or not c"1" <= text[0] <= c"9" or not c"0" <= text[1] <= c"9"
            or not c"0" <= text[2] <= c"9"
            or fh_value_end(
                <const byte *>text, <const byte *>text + size, &high
            ) != <const byte *>text + size
        ):
            raise AppError(f"not a status such as '200 OK': {status!r}")
        self.status = (
            (text[0] - c"0") * 100 + (text[1] - c"0") * 10 + text[2] - c"0"
        )
        if self.status < 200 and self.status != 101:
            raise AppError(f"{status!r} is no final status")
        self.append(b"HTTP/1.1 ", 9)
        self.append(text, size)
        return self.append(b"\r\n", 2)

    cdef int _write_field(self, object field, int *seen) except -1:
        cdef object name, value
        cdef const byte *name_text
        cdef const byte *value_text
        cdef Py_ssize_t name_size, value_size
        cdef char *to
        cdef int high = 0
        cdef int hop
        if type(field) is not tuple or len(<tuple>field) != 2:
            raise AppError(f"not a (name, value) tuple: {field!r}")
        name = (<tuple>field)[0]
        value = (<tuple>field)[1]
        if not PyUnicode_Check(name) or not PyUnicode_Check(value):
            raise AppError(f"a header that is not of str: {field!r}")
        name_text = <const byte *>PyUnicode_DATA(name)
        name_size = PyUnicode_GET_LENGTH(name)
        value_text = <const byte *>PyUnicode_DATA(value)
        value_size = PyUnicode_GET_LENGTH(value)
        if (
            PyUnicode_KIND(name) != 1 or name_size == 0
            or fh_token_end(name_text, name_text + name_size)
            != name_text + name_size
        ):
            raise AppError(f"not a header name: {name!r}")
        if (
            PyUnicode_KIND(value) != 1
            or fh_value_end(value_text, value_text + value_size, &high)
            != value_text + value_size
        ):
            raise AppError(
                f"the header {name} has a value with a control or a "
                f"character outside latin-1: {value!r}"
            )
        hop = self._note(
            <const char *>name_text, name_size, value, seen
        )
        if hop:
            return 0
        to = self._reserve(name_size + value_size + 4)
        memcpy(to, name_text, name_size)
        to += name_size
        to[0] = c":"
        to[1] = c" "
        memcpy(to + 2, value_text, value_size)
        to += value_size + 2
        to[0] = c"\r"
        to[1] = c"\n"
        self.size += name_size + value_size + 4
        return 0

    cdef int _note(
        self, const char *name, Py_ssize_t size, object value, int *seen
    ) except -1:
        """Act on a field that is the server's business; 1: do not send it.

        RFC 9110 section 7.6.1 and PEP 3333: hop-by-hop fields are not the
        application's to set; of Connection, its `close` is kept.
        """
        if size == 4 and is_name(name, size, b"date", 4):
            seen[0] |= SEEN_DATE
        elif size == 6 and is_name(name, size, b"server", 6):
            seen[0] |= SEEN_SERVER
        elif size == 14 and is_name(name, size, b"content-length", 14):
            self._take_length(value, seen)
            return 1
        elif size == 10 and is_name(name, size, b"connection", 10):
            if self.status == 101:
                return 0
            if "close" in [
                token.strip().lower() for token in value.split(",")
            ]:
                seen[0] |= SEEN_CLOSE
            return 1
        elif (
            size == 10 and is_name(name, size, b"keep-alive", 10)
            or size == 17 and is_name(name, size, b"transfer-encoding", 17)
            or size == 16 and is_name(name, size, b"proxy-connection", 16)
        ):
            return 1
        return 0

    cdef int _take_length(self, object value, int *seen) except -1:
        cdef long long length
        if not value.isascii() or not value.isdigit() or len(value) > 18:
            raise AppError(f"not a Content-Length: {value!r}")
        length = int(value)
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
