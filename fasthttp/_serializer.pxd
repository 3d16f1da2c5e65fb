from cpython.ref cimport PyObject

cdef enum Framing:
    NO_BODY = 0
    LENGTH = 1
    CHUNKED = 2
    UNTIL_CLOSE = 3


# What a field of the application's is to the server.
cdef enum Role:
    NO_ROLE = -1
    PLAIN = 0
    DATE = 1
    SERVER = 2
    CONTENT_LENGTH = 3
    CONNECTION = 4
    HOP_BY_HOP = 5

cdef enum:
    KNOWN_SLOTS = 64
    KNOWN_LINE = 96

# A field's name that came before, and the last line made of it.
cdef struct Line:
    PyObject *name
    PyObject *value             # NULL: none, or it is not sent as it is
    Role role
    Py_ssize_t size
    char line[KNOWN_LINE]


cdef class ResponseSerializer:
    cdef bytes _server
    cdef char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t _room
    cdef long long _second
    cdef object _last_status    # applications pass the same str again
    cdef int _last_code
    cdef bytes _status_line
    cdef Line _known[KNOWN_SLOTS]
    cdef char _date[38]         # "Date: " and IMF-fixdate and CR LF

    # What the last head said.
    cdef readonly int status
    cdef readonly int framing
    cdef readonly bint keep_alive
    cdef readonly long long length

    cdef int write_head(
        self, object status, list headers, int minor, bint is_head,
        bint keep_alive, long long length,
    ) except -1
    cdef int write_chunk_size(self, Py_ssize_t size) except -1
    cdef int append(self, const char *data, Py_ssize_t size) except -1

    cdef int _write_status(self, object status) except -1
    cdef int _write_field(self, object field, int *seen) except -1
    cdef int _refuse_value(self, object field) except -1
    cdef Role _learn_name(self, size_t slot, object name) except? NO_ROLE
    cdef int _learn_value(
        self, Line *known, object value, Py_ssize_t start
    ) except -1
    cdef void _forget(self, Line *known) noexcept
    cdef bint _act_on(
        self, Role role, const char *text, Py_ssize_t size, int *seen
    ) except -1
    cdef int _take_length(
        self, const char *text, Py_ssize_t size, int *seen
    ) except -1
    cdef const char *_date_field(self) noexcept
    cdef char *_reserve(self, Py_ssize_t size) except NULL
