from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

from fasthttp._parser cimport Head, RequestParser

cdef enum:
    SHAPES = 16         # by four bits of a hash
    FIELDS_MAX = 32


cdef class Shape:
    cdef dict environ           # None while the application has it
    cdef str remote_addr
    cdef str remote_port
    cdef int parts              # of its request line, not the template's
    cdef int count
    cdef int plain              # fields, before one that is not
    cdef bint lendable          # what it is lent for can be taken out again
    cdef signed char known[FIELDS_MAX]
    cdef char kinds[FIELDS_MAX]
    cdef PyObject *values[FIELDS_MAX]   # held by `environ`

    cdef void describe(self, const Head *head) noexcept
    cdef bint fits(self, const Head *head) noexcept
    cdef int begin(self, Shape base) except -1
    cdef int set_remote(self, str addr, str port) except -1
    cdef int set_values(self, RequestParser parser) except -1
    cdef int forget_secrets(self, dict environ) except -1


cdef class EnvironTemplate:
    cdef Shape _base                # without fields; what others begin as
    cdef list _shapes               # at the hash of their fields
    cdef Shape _last                # the one that fitted last
    cdef uint64_t _seen[SHAPES]     # hash of the last that was not there
    cdef object _no_input
    cdef bint _lends                # the last environ came back as it was
    # Of the last one made:
    cdef Shape _lent                # whose it is, or None for a copy
    cdef PyObject *_made            # compared only
    cdef uint64_t _changes
    cdef bint _has_input            # not _no_input

    cdef dict make(
        self, RequestParser parser, str remote_addr, str remote_port
    )
    cdef Shape shape_of(self, const Head *head)
    cdef int set_input(self, dict environ, object stream) except -1
    cdef bint is_unchanged(self, dict environ) noexcept
    cdef int take_back(self, dict environ, bint alone) except -1
