from libc.stdint cimport uint32_t

from fasthttp._fields cimport Field, FieldMemo, latin1

cdef enum Event:
    NEED_DATA = 0
    HEAD = 1
    DATA = 2
    END = 3

cdef extern from "_scan.h":
    ctypedef struct Cursor "fh_cursor":
        const unsigned char *line
        const unsigned char *p
        int high

cdef struct Span:
    uint32_t start
    uint32_t size

cdef struct Head:
    # Offsets into the head's bytes; fields hold until the next event.
    Span method
    Span target
    Span authority      # of an absolute- or authority-form target, or empty
    Span path           # not decoded; empty for * and authority-form
    Span query
    bint has_root       # an empty path means /
    bint is_head        # the method is HEAD
    bint is_connect
    int minor           # of HTTP/1.x
    uint32_t size
    int count
    Field *fields
    long long content_length    # -1: none
    bint chunked
    bint keep_alive
    bint expect_continue


cdef class RequestHead:
    cdef bytes _raw
    cdef bytes _fields                  # holds those of _head
    cdef FieldMemo _memo
    cdef Head _head
    cdef list _headers

    cdef object text(self, Span span)


cdef class RequestParser:
    cdef FieldMemo memo
    cdef RequestParser below            # in a stack of spare ones
    cdef Head head
    cdef const unsigned char *data      # of a DATA event
    cdef Py_ssize_t data_size
    cdef long long body_size            # bytes of the body seen so far

    cdef object _config
    cdef Py_ssize_t _limit_line
    cdef Py_ssize_t _limit_fields
    cdef Py_ssize_t _limit_field_size
    cdef Py_ssize_t _limit_head
    cdef long long _limit_body
    cdef Py_ssize_t _limit_extensions
    cdef const unsigned char *_base
    cdef const unsigned char *_end
    cdef unsigned char *_kept
    cdef Py_ssize_t _kept_size
    cdef Py_ssize_t _kept_room
    cdef int _room                      # of head.fields, and one more
    cdef int _state
    cdef Py_ssize_t _cursor
    cdef Py_ssize_t _line
    cdef int _empty_lines
    cdef int _high                      # the line so far has obs-text
    cdef int _hosts
    cdef bint _chunked_seen
    cdef bint _close_seen
    cdef bint _unknown_coding
    cdef long long _remaining
    cdef int _digits
    cdef Py_ssize_t _extension_bytes
    cdef Py_ssize_t _consumed           # of the message, before _base
    cdef object _error

    cdef int feed(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int next_event(self) except -1
    cdef int keep(self) except -1
    cdef void reset(self) noexcept
    cdef bint at_start(self) noexcept
    cdef int _make_room(self, Py_ssize_t size) except -1
    cdef void _release(self) noexcept
    cdef bint idle(self) noexcept
    cdef Py_ssize_t unread(self) noexcept
    cdef const unsigned char *at(self, uint32_t offset) noexcept
    cdef object method(self)
    cdef RequestHead copy_head(self)
    cdef RequestHead copy_head_to(self, RequestHead copy)

    cdef int _add_events(self, list events) except -1
    cdef void _consume(self, Py_ssize_t size) noexcept
    cdef int _refuse_name(self, const unsigned char *at) except -1
    cdef int _refuse_limit(
        self, int status, str what, str limit
    ) except -1
    cdef int _parse_head(self) except -1
    cdef int _parse_fields(self) except -1
    cdef int _take_fields(self, int first) except -1
    cdef int _end_fields(
        self, const Cursor *cursor, const unsigned char *end
    ) except -1
    cdef int _act_on(self, Field *field) except -1
    cdef int _parse_content_length(self, Field *field) except -1
    cdef int _parse_transfer_encoding(self, Field *field) except -1
    cdef int _parse_connection(self, Field *field) except -1
    cdef int _check_host(
        self, const unsigned char *p, Py_ssize_t size
    ) except -1
    cdef int _grow_fields(self) except -1
    cdef int _split_target(self) except -1
    cdef int _end_of_head(self) except -1
    cdef void _start_message(self) noexcept
    cdef int _parse_chunked(self) except -1
    cdef int _take_size(self, unsigned char c) except -1
    cdef int _count_extension(self) except -1
    cdef int _take_extension(self, unsigned char c) except -1
    cdef int _end_of_element(self, unsigned char c) except -1
    cdef int _refuse_body(self) except -1
    cdef int _check_line(self, Py_ssize_t at) except -1
    cdef int _check_head(self, Py_ssize_t at) except -1
    cdef int refuse(self, int status, str detail) except -1


cdef inline object text_of(RequestParser parser, Span span):
    """A part of the head that is in `parser`, if it is ASCII."""
    return latin1(parser._base + span.start, span.size, False)
