from fasthttp._fields cimport FieldMemo
from fasthttp._parser cimport RequestHead, RequestParser
from fasthttp._protocol cimport BaseProtocol, BaseTransport
from fasthttp._serializer cimport ResponseSerializer
from fasthttp._store cimport RequestBody, Store

cdef enum State:
    IDLE = 0            # between requests
    READING_HEAD = 1
    READING_BODY = 2
    RESPONDING = 3      # a whole request is with the application
    STARTED = 4         # and its answer's head is written
    ENDED = 5           # nothing more is read or answered


cdef enum Overrun:
    NO_OVERRUN = 0
    TO_BE_LOGGED = 1
    LOGGED = 2


cdef class Request(RequestHead):
    cdef readonly object remote
    cdef RequestBody _content


cdef class HttpContext:
    cdef object config
    cdef object access_log
    cdef ResponseSerializer serializer
    cdef FieldMemo memo                 # of all parsers
    cdef RequestParser spare            # the first that no message needs
    cdef int spares
    cdef double keep_alive
    cdef double header_timeout
    cdef double body_timeout
    cdef long long body_rate
    cdef Py_ssize_t pipelined
    cdef readonly Store store
    cdef double quiet_until
    cdef int unlogged
    cdef RequestParser take_parser(self)
    cdef int give_back(self, RequestParser parser) except -1
    cdef int log_refusal(self, object peer, object error) except -1


cdef class HttpProtocol(BaseProtocol):
    cdef BaseTransport transport
    cdef HttpContext context
    cdef RequestParser parser   # while a message is under way
    cdef Request request
    cdef RequestBody body
    cdef State state
    cdef bint running           # in run(), on this stack
    cdef bint reading_paused
    cdef bint eof
    cdef bint draining
    cdef int status
    cdef int framing
    cdef bint persist
    cdef bint sending           # in send_piece(), on this stack
    cdef bint pause_due
    cdef bint told_pause
    cdef Overrun overrun        # of its Content-Length
    cdef long long remaining
    cdef long long sent
    cdef long long body_mark
    cdef double since
    cdef tuple log_entry

    cdef bint expects(self, State state, str fault) except -1
    cdef int await_request(self) except -1
    cdef int abandon(self) except -1
    cdef int begin_request(self) except -1
    cdef int complete_request(self) except -1
    cdef int writable_again(self) except -1
    cdef int abandon_request(self) except -1

    cdef int set_up(
        self, object server, BaseTransport transport, HttpContext context
    ) except -1
    cdef int release_parser(self) except -1
    cdef int pause_reading(self) except -1
    cdef int tell_pause(self) except -1
    cdef int await_reader(self) except -1
    cdef bint held_up(self) noexcept
    cdef int run(self) except -1
    cdef bint advance(self) except -1
    cdef bint let_others_go_first(self) except -1
    cdef int after_run(self, bint stalled) except -1
    cdef int head_received(self) except -1
    cdef int time_out(self, str detail) except -1
    cdef int turn_away(self, object error) except -1
    cdef int refuse(self, int status, str detail) except -1
    cdef int send_head(
        self, object status, list headers, long long length
    ) except -1
    cdef int write_head(
        self, object status, list headers, long long length
    ) except -1
    cdef int send_response(
        self, object status, list headers, bytes body
    ) except -1
    cdef int send_data(self, bytes data) except -1
    cdef long long admit(self, long long size) noexcept
    cdef int send_piece(self, bytes data) except -1
    cdef int log_overrun(self) except -1
    cdef int send_file(
        self, object owner, int fd, long long offset, long long count
    ) except -1
    cdef int finish_response(self) except -1
    cdef int end_response(self) except -1
    cdef int next_request(self) except -1
    cdef bint answer_is_over(self) except -1
    cdef int close_after_answer(self) except -1
    cdef int drop_body(self) except -1
    cdef int fail_response(self) except -1
    cdef int note_request(self) except -1
    cdef int log_cut(self) except -1
    cdef int log_response(self) except -1
