from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

from fasthttp._parser cimport Head, RequestParser

cdef enum:
    SHAPES = 16         # by four bits of a hash
    FIELDS_MAX = 32
    LOANS_MAX = 64      # kept for one shape
    COPIES = 64         # for an application that changes what it is lent


cdef class Loan


cdef class Shape:
    cdef Loan loans             # that are here, each with the next
    cdef int kept
    cdef int copies             # to make before the next is lent
    cdef object no_input
    cdef int count
    cdef int plain              # fields, before one that is not
    cdef bint lendable          # what it is lent for can be taken out again
    cdef signed char known[FIELDS_MAX]
    cdef char kinds[FIELDS_MAX]

    cdef void describe(self, const Head *head) noexcept
    cdef bint fits(self, const Head *head) noexcept
    cdef int keep(self, Loan loan) except -1
    cdef dict lend(self, Loan loan)
    cdef int forget_secrets(self, dict environ) except -1


cdef class Loan:
    cdef Shape shape            # None while it is here
    cdef dict environ           # None while the application has it
    cdef Loan next
    cdef str remote_addr
    cdef str remote_port
    cdef int parts              # of its request line, not the template's
    cdef bint has_input         # another than the shape's
    cdef uint64_t changes       # as it was when it was lent
    cdef PyObject *values[FIELDS_MAX]   # held by the environ

    cdef int set_remote(self, str addr, str port) except -1
    cdef int set_values(self, RequestParser parser, Shape shape) except -1
    cdef int set_input(self, dict environ, object stream) except -1
    cdef bint is_over(self, dict environ) noexcept
    cdef int come_back(self, dict environ) except -1


cdef class EnvironTemplate:
    cdef Shape _base                # without fields; what others begin as
    cdef list _shapes               # at the hash of their fields
    cdef Shape _last                # the one that fitted last
    cdef uint64_t _seen[SHAPES]     # hash of the last that was not there
    cdef Loan loan                  # of the environ made last, or None

    cdef dict make(
        self, RequestParser parser, str remote_addr, str remote_port
    )
    cdef Shape shape_of(self, const Head *head)
