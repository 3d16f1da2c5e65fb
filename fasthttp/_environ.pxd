from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

from fasthttp._parser cimport Head, RequestParser

cdef enum:
    KEYS_MAX = 32


cdef class EnvironTemplate:
    cdef dict _template
    cdef object _no_input
    cdef dict _spare            # the last one made, if it is used again
    # Of the last one made:
    cdef uint64_t _version
    cdef bint _has_input        # not _no_input
    cdef int _parts             # of its request line, not the template's
    cdef int _keys              # of its fields; -1: it is not used again
    cdef signed char _known[KEYS_MAX]
    cdef PyObject *_values[KEYS_MAX]    # the environ holds them
    cdef str _remote_addr
    cdef str _remote_port
    cdef bint _template_stale   # has another remote address

    cdef dict make(
        self, RequestParser parser, str remote_addr, str remote_port
    )
    cdef int add_fields(
        self, dict environ, RequestParser parser, bint again
    ) except -1
    cdef int set_input(self, dict environ, object stream) except -1
    cdef int take_back(self, dict environ) except -1
    cdef int set_remote(self, dict environ, str addr, str port) except -1
    cdef bint has_keys_of(self, const Head *head) noexcept
    cdef void note_keys_of(self, const Head *head) noexcept
