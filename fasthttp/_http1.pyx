"""One HTTP/1.1 connection: requests in order, one answer for each.

`HttpProtocol` joins parser and serializer to a transport; it is sans-I/O:
bytes come in by `on_data_received` and leave through `BaseTransport`.
"""
import logging
import time
from io import BytesIO

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from fasthttp._fields cimport (
    Field, FieldMemo, own_value, REFERER, USER_AGENT
)
from fasthttp._parser cimport (
    DATA, END, HEAD, RequestHead, RequestParser, Span, text_of
)
from fasthttp._protocol cimport BaseProtocol, BaseTransport
from fasthttp._serializer cimport (
    CHUNKED, LENGTH, NO_BODY, ResponseSerializer, UNTIL_CLOSE
)
from fasthttp._store cimport RequestBody, Store

from fasthttp.config import Config
from fasthttp.errors import AppError, PeerError

cdef enum:
    # Bytes up to which a copy behind the head beats a second iovec.
    COPY_MAX = 16384
    # A body that is larger is received in place.
    IN_PLACE_MIN = 16384
    SPARE_PARSERS = 64

# Seconds an idle connection may still bring a request once we stop.
cdef double DRAIN_GRACE = 0.2

cdef object error_log = logging.getLogger("fasthttp.error")
cdef list PLAIN_TEXT = [("Content-Type", "text/plain; charset=utf-8")]
cdef list LAST = [*PLAIN_TEXT, ("Connection", "close")]
cdef list BUSY = [*PLAIN_TEXT, ("Retry-After", "10")]
cdef str ELSEWHERE = (
    "only the loop's thread may answer: pass the call to"
    " server.call_soon_threadsafe()"
)
cdef str NO_REQUEST = "there is no request that waits for an answer"
cdef bytes SERVER_ERROR = b"Internal Server Error\n"
# What a TLS client's first record begins with (RFC 8446 section 5.1).
cdef bytes TLS = b"\x16\x03"
cdef bytes CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


cdef class HttpContext:
    """What all connections of one loop and configuration share."""

    def __init__(self, config, access_log):
        if config is None:
            config = Config()
        self.config = config
        self.access_log = access_log
        self.serializer = ResponseSerializer(
            "fasthttp" if config.server_header else ""
        )
        self.keep_alive = config.keep_alive
        self.header_timeout = config.header_timeout
        self.body_timeout = config.body_timeout
        self.body_rate = config.body_min_rate
        self.store = Store(config)
        self.pipelined = config.limit_pipelined
        self.memo = FieldMemo()

    cdef RequestParser take_parser(self):
        """One at the start of a message.

        The last one given back comes first: what it holds is still in the
        processor's caches.
        """
        cdef RequestParser parser = self.spare
        if parser is None:
            return RequestParser(self.config, self.memo)
        self.spare = parser.below
        parser.below = None
        self.spares -= 1
        return parser

    cdef int give_back(self, RequestParser parser) except -1:
        if self.spares < SPARE_PARSERS:
            parser.below = self.spare
            self.spare = parser
            self.spares += 1
        return 0

    cdef int log_refusal(self, object peer, object error) except -1:
        """One line a second at most: the peer chooses how often it errs."""
        cdef double now = time.monotonic()
        if now < self.quiet_until:
            self.unlogged += 1
            return 0
        error_log.info(
            "%s: refused with %d: %s; at byte %d of %r%s%s",
            peer, error.status, error.detail, error.offset, error.data,
            " - the client speaks TLS" if error.data[:2] == TLS else "",
            f" ({self.unlogged} more since)" if self.unlogged else ""
        )
        self.quiet_until = now + 1
        self.unlogged = 0
        return 0


cdef class Request(RequestHead):
    """A whole request, its body collected."""

    @property
    def body(self):
        return self._content.content() if self._content is not None else b""

    @property
    def stream(self):
        return self._content.stream() if self._content is not None else (
            BytesIO()
        )


cdef list as_list(object headers):
    return headers if type(headers) is list else list(headers)


cdef bytes as_bytes(object data):
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        return data.encode()
    return bytes(memoryview(data))


cdef class HttpProtocol(BaseProtocol):
    """Serves HTTP/1.1 on one connection; override `on_request`.

    `config` and `access_log` are read from the class, once for each server;
    the latter is called as `log.AccessLog`, without `self`. Of `config`
    counts what concerns requests; what is unsent is bounded by the server's
    attributes: `WRITE_TIMEOUT`, `MAX_QUEUED`, `MAX_QUEUED_TOTAL`.

    Requests come one at a time; the next one when the answer has ended, and
    not before `respond` or `end` have returned. The answer is `respond`, or
    `start`, `write` any number of times, `end`, from the loop's thread, now
    or later. Once the client is gone or has its last answer they do nothing;
    `on_connection_closed` tells of it. Bytes and deadlines are its own:
    `on_data_received` and `on_deadline` of a subclass are not called.
    """

    config = None
    access_log = None

    def __init__(self, server, BaseTransport sk_client not None, mqueue):
        self.set_up(server, sk_client, self._context_of(server))

    cdef int set_up(
        self, object server, BaseTransport transport, HttpContext context
    ) except -1:
        self.server = server
        self.trans = self._mqueue = self.transport = transport
        self.context = context
        self.reads_on = True
        return 0

    def _context_of(self, server):
        """One context for each loop and protocol class."""
        contexts = server.__dict__.setdefault("_http_contexts", {})
        context = contexts.get(type(self))
        if context is None:
            cls = type(self)
            # Of the class, so that a function is not bound to `self`.
            context = contexts[cls] = HttpContext(cls.config, cls.access_log)
        return context

    # The hooks of BaseProtocol.

    def on_new_connection(self, address):
        pass

    def on_data_received(self, bytes data not None):
        self.data_received(PyBytes_AS_STRING(data), len(data))

    def on_connection_closed(self):
        pass

    def on_shutdown(self):
        pass

    def on_request(self, request):
        self.respond(404, PLAIN_TEXT, b"Nothing is served here.\n")

    # The answer, from the loop's thread, now or later. What may run code of
    # the caller's comes before the look at the state, which it may change.

    def respond(self, status, headers=(), body=b""):
        headers, body = as_list(headers), as_bytes(body)
        if self.expects(RESPONDING, NO_REQUEST):
            self.send_response(status, headers, body)
            self.finish_response()

    def start(self, status, headers=()):
        headers = as_list(headers)
        if self.expects(RESPONDING, NO_REQUEST):
            self.send_head(status, headers, -1)

    def write(self, data):
        data = as_bytes(data)
        if self.expects(STARTED, "write() before start()"):
            self.send_data(data)

    def end(self):
        if self.expects(STARTED, "end() before start()"):
            self.finish_response()

    cdef bint expects(self, State state, str fault) except -1:
        """False once nobody is there who could get an answer."""
        if self.state == ENDED:
            return False
        if self.state != state:
            raise AppError(fault)
        if self.transport.is_elsewhere():
            raise AppError(ELSEWHERE)
        return True

    @cython.nonecheck(True)
    def close_socket_connection(self):
        """Also of what the client has sent since: no more is answered."""
        self.log_cut()
        self.state = ENDED
        self.transport.close()

    # From the transport.

    @cython.nonecheck(True)
    cdef int connection_made(self) except -1:
        self.on_new_connection(self.transport.getpeername())
        return self.await_request()

    cdef int await_request(self) except -1:
        self.since = self.transport.set_deadline(self.context.keep_alive)
        return 0

    cdef int get_buffer(self, char **data, Py_ssize_t *size) except -1:
        cdef RequestBody body = self.body
        if body is not None and body.block is not None and (
            self.state == READING_BODY
        ):
            size[0] = PyBytes_GET_SIZE(body.block) - body.size
            if size[0] >= IN_PLACE_MIN:
                data[0] = PyBytes_AS_STRING(body.block) + body.size
                return 0
        self.in_place = False
        return 0

    @cython.nonecheck(True)
    cdef int data_received(
        self, const char *data, Py_ssize_t size
    ) except -1:
        if self.state == ENDED:
            return 0
        if self.parser is None:
            self.parser = self.context.take_parser()
        if self.running:
            # The program feeds it from within a request.
            self.parser.keep()
        self.parser.feed(<const unsigned char *>data, size)
        if self.state < RESPONDING and not self.running:
            return self.run()
        # Ahead of its turn: kept, but no more of it.
        self.parser.keep()
        return self.pause_reading()

    cdef int release_parser(self) except -1:
        """Between messages a connection needs none."""
        self.context.give_back(self.parser)
        self.parser = None
        return 0

    cdef int pause_reading(self) except -1:
        if not self.reading_paused:
            self.reading_paused = True
            self.transport.pause_reading()
        return 0

    cdef int eof_received(self) except -1:
        self.eof = True
        if self.state < RESPONDING and not self.held_up():
            self.state = ENDED
            self.transport.close()
        return 0

    cdef int pause_writing(self) except -1:
        if self.state < RESPONDING:
            return self.await_reader()
        # Not in the middle of a chunk: the hook may write or end.
        if self.sending:
            self.pause_due = True
            return 0
        return self.tell_pause()

    cdef int tell_pause(self) except -1:
        self.pause_due = False
        self.told_pause = True
        try:
            self.on_pause_writing()
        except BaseException:
            self.transport.abort()
            raise
        return 0

    cdef int await_reader(self) except -1:
        """Nothing is read now: no time runs for what has begun to arrive."""
        if self.state == READING_HEAD:
            self.state = IDLE
        elif self.state == READING_BODY:
            self.body_mark = -1
        else:
            return 0
        self.transport.set_deadline(0)
        return 0

    cdef int resume_writing(self) except -1:
        if self.told_pause:
            self.told_pause = False
            self.on_resume_writing()
        if self.state >= RESPONDING:
            return self.writable_again()
        return self.run()

    cdef bint held_up(self) noexcept:
        """The next request is here, and waits for others or for its client."""
        return (
            self.state == IDLE and self.parser is not None
            and self.parser.unread() > 0
        )

    cdef int deadline_expired(self) except -1:
        if self.held_up():
            return 0
        if self.state == IDLE:
            if self.transport.has_input():
                self.transport.set_deadline(self.context.header_timeout)
                return 0
            self.state = ENDED
            return self.transport.close()
        if self.state == READING_HEAD:
            return self.time_out(
                "the head did not arrive within header_timeout"
                f" ({self.context.header_timeout:g} s)"
            )
        if self.state == READING_BODY:
            if (
                self.parser.body_size - self.body_mark
                < self.context.body_rate * self.context.body_timeout
            ):
                return self.time_out(
                    "the body arrives slower than body_min_rate"
                    f" ({self.context.body_rate} bytes a second)"
                )
            self.body_mark = self.parser.body_size
            self.transport.set_deadline(self.context.body_timeout)
        return 0

    cdef int time_out(self, str detail) except -1:
        try:
            return self.parser.refuse(408, detail)
        except PeerError as error:
            return self.turn_away(error)

    cdef int drain(self) except -1:
        self.draining = True
        self.on_shutdown()
        if self.state == IDLE and not self.held_up():
            if self.transport.now() - self.since > DRAIN_GRACE and (
                not self.transport.has_input()
            ):
                self.state = ENDED
                return self.transport.close()
            self.transport.set_deadline(DRAIN_GRACE)
        return 0

    cdef int connection_lost(self) except -1:
        self.abandon()
        self.on_connection_closed()
        return 0

    cdef int abandon(self) except -1:
        cdef State state = self.state
        self.log_cut()
        self.state = ENDED
        self.drop_body()
        if state == STARTED and self.framing == UNTIL_CLOSE:
            # The server stops: a plain end would make it look complete.
            self.transport.abort()
        if state != IDLE and state != ENDED:
            self.abandon_request()
        if self.parser is not None:
            self.parser.reset()
            self.release_parser()
        return 0

    # Requests.

    cdef int run(self) except -1:
        """Parse and answer until bytes, room or an answer is missing."""
        if self.running or self.parser is None:
            return 0
        self.running = True
        cdef bint stalled = False
        try:
            stalled = self.advance()
        except PeerError as error:
            self.turn_away(error)
        except OSError as error:
            self.refuse(507, "the request body cannot be stored")
            error_log.error("cannot store a request body: %s", error)
        finally:
            self.running = False
        if self.state != ENDED:
            self.after_run(stalled)
        return 0

    cdef bint advance(self) except -1:
        """True if it stopped though there may be more to answer."""
        cdef int event
        cdef Py_ssize_t left = self.context.pipelined
        if self.transport.full():
            return True
        while self.state < RESPONDING:
            event = self.parser.next_event()
            if event == HEAD:
                self.head_received()
            elif event == DATA:
                self.body.add(self.parser.data, self.parser.data_size)
            elif event == END:
                if self.body is not None:
                    self.body.complete()
                self.state = RESPONDING
                self.complete_request()
                # An answer under way must be told to pause, not just stop.
                if self.state == IDLE and self.transport.full():
                    return True
                left -= 1
                if left == 0:
                    return self.let_others_go_first()
            else:
                break
        return False

    cdef bint let_others_go_first(self) except -1:
        """Go on in the loop's next turn, if there is more."""
        if self.state != IDLE or self.parser.unread() == 0:
            return False
        self.pause_reading()
        self.server.call_soon_threadsafe(self._go_on)
        return True

    def _go_on(self):
        if self.state == IDLE:
            self.run()

    cdef int after_run(self, bint stalled) except -1:
        self.parser.keep()
        if stalled or self.state >= RESPONDING:
            # The application's turn, or that of a client to read.
            self.await_reader()
            self.transport.set_deadline(0)
            return 0
        if self.reading_paused:
            self.reading_paused = False
            self.transport.resume_reading()
        if self.eof:
            self.state = ENDED
            return self.transport.close()
        if self.state == READING_BODY:
            if self.body_mark < 0:
                self.body_mark = self.parser.body_size
                self.transport.set_deadline(self.context.body_timeout)
            return 0
        if not self.parser.idle():
            if self.state == IDLE:
                self.state = READING_HEAD
                self.transport.set_deadline(self.context.header_timeout)
        else:
            self.state = IDLE
            self.since = self.transport.set_deadline(
                DRAIN_GRACE if self.draining else self.context.keep_alive
            )
            if self.parser.at_start():
                self.release_parser()
        return 0

    cdef int head_received(self) except -1:
        cdef RequestParser parser = self.parser
        self.sent = 0
        self.overrun = NO_OVERRUN
        if self.context.access_log is not None:
            self.note_request()
        if parser.head.is_connect:
            return parser.refuse(
                501, "this is no proxy: CONNECT is not served"
            )
        self.begin_request()
        if not parser.head.chunked and parser.head.content_length <= 0:
            return 0
        self.state = READING_BODY
        self.body = RequestBody(self.context.store)
        self.body.expect(parser.head.content_length)
        self.in_place = True
        # Most small bodies are here already: see after_run.
        self.body_mark = -1
        # RFC 9110 section 10.1.1: not if the body is under way already.
        if parser.head.expect_continue and parser.unread() == 0:
            self.transport.write(CONTINUE)
        return 0

    cdef int begin_request(self) except -1:
        """A head is parsed; take from the parser what will be needed."""
        self.request = Request.__new__(Request)
        self.parser.copy_head_to(self.request)
        return 0

    cdef int complete_request(self) except -1:
        """The whole request is here; answer it now or later."""
        cdef Request request = self.request
        self.request = None
        request._content = self.body
        request.remote = self.transport.getpeername()
        try:
            self.on_request(request)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            error_log.exception(
                "exception in on_request: %s %s", request.method, request.target
            )
            if self.state == RESPONDING:
                # What it may have planned must not answer the next request.
                self.send_response(500, LAST, SERVER_ERROR)
                self.finish_response()
            else:
                self.fail_response()
        return 0

    cdef int writable_again(self) except -1:
        """What was sent has left the memory, after a pause."""
        return 0

    cdef int abandon_request(self) except -1:
        """What was begun will not be answered, or not to its end."""
        self.request = None
        return 0

    cdef int turn_away(self, object error) except -1:
        peer = self.transport.getpeername()
        # First: a handler of the log may fail.
        self.refuse(error.status, error.detail)
        return self.context.log_refusal(peer, error)

    cdef int refuse(self, int status, str detail) except -1:
        """Answer the peer's fault and close, so that it is read."""
        if self.state == ENDED:
            # Its parser may be another's by now.
            return 0
        self.drop_body()
        self.abandon_request()
        cdef ResponseSerializer out = self.context.serializer
        cdef bytes text = f"{detail}\n".encode()
        out.write_head(
            status, BUSY if status == 503 else PLAIN_TEXT, 1,
            self.parser.head.is_head, False, len(text)
        )
        if out.framing == LENGTH:
            out.append(PyBytes_AS_STRING(text), len(text))
        self.transport.write_raw(out.data, out.size)
        self.status = status
        self.sent = len(text) if out.framing == LENGTH else 0
        self.log_response()
        self.state = ENDED
        return self.transport.close_lingering()

    # Answers.

    cdef int send_head(
        self, object status, list headers, long long length
    ) except -1:
        self.write_head(status, headers, length)
        self.send_piece(b"")
        if self.pause_due:
            self.tell_pause()
        return 0

    cdef int write_head(
        self, object status, list headers, long long length
    ) except -1:
        cdef ResponseSerializer out = self.context.serializer
        # RFC 9110 section 8.6: that a body is left out for HEAD tells
        # nothing of the length it has for GET.
        out.write_head(
            status, headers, self.parser.head.minor, self.parser.head.is_head,
            self.parser.head.keep_alive and not (
                (self.draining or self.eof) and self.parser.unread() == 0
                and not self.transport.has_input()
            ), -1 if length == 0 and self.parser.head.is_head else length
        )
        self.status = out.status
        self.framing = out.framing
        self.remaining = out.length
        self.persist = out.keep_alive
        self.state = STARTED
        return 0

    cdef int send_response(
        self, object status, list headers, bytes body
    ) except -1:
        """Head and whole body in one go."""
        self.write_head(status, headers, PyBytes_GET_SIZE(body))
        # Should it be told to pause, then behind the whole: next_request().
        return self.send_piece(body)

    cdef int send_data(self, bytes data) except -1:
        self.context.serializer.size = 0
        self.send_piece(data)
        if self.pause_due:
            self.tell_pause()
        return 0

    cdef long long admit(self, long long size) noexcept:
        """How many of `size` more bytes belong to the body."""
        if self.framing == NO_BODY:
            return 0
        if self.framing == LENGTH:
            if size > self.remaining:
                self.overrun = max(self.overrun, TO_BE_LOGGED)
                size = self.remaining
            self.remaining -= size
        self.sent += size
        return size

    cdef int send_piece(self, bytes data) except -1:
        """What the serializer holds, then what of `data` is of the body.

        Tells no pause before.
        """
        cdef ResponseSerializer out = self.context.serializer
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if size:
            size = self.admit(size)
        cdef bint is_chunk = size > 0 and self.framing == CHUNKED
        if is_chunk:
            out.write_chunk_size(size)
        elif out.size and 0 < size <= COPY_MAX:
            out.append(PyBytes_AS_STRING(data), size)
            size = 0
        self.sending = True
        try:
            if out.size:
                self.transport.write_raw(out.data, out.size)
            if size > COPY_MAX:
                self.transport.write(
                    data if size == PyBytes_GET_SIZE(data) else data[:size]
                )
            elif size:
                self.transport.write_raw(PyBytes_AS_STRING(data), size)
            if is_chunk:
                self.transport.write_raw(b"\r\n", 2)
        finally:
            self.sending = False
        if self.overrun == TO_BE_LOGGED:
            # Not before: a handler may use the serializer.
            self.log_overrun()
        return 0

    cdef int log_overrun(self) except -1:
        self.overrun = LOGGED
        error_log.error(
            "the application sends more than its Content-Length; the body"
            " is cut at %d bytes", self.sent
        )
        return 0

    cdef int send_file(
        self, object owner, int fd, long long offset, long long count
    ) except -1:
        """As send_data, with `count` bytes of an open file."""
        cdef ResponseSerializer out = self.context.serializer
        count = self.admit(count)
        cdef bint is_chunk = count > 0 and self.framing == CHUNKED
        if is_chunk:
            out.size = 0
            out.write_chunk_size(count)
            self.transport.write_raw(out.data, out.size)
        self.transport.write_file(owner, fd, offset, count)
        if is_chunk:
            self.transport.write_raw(b"\r\n", 2)
        if self.overrun == TO_BE_LOGGED:
            self.log_overrun()
        return 0

    cdef int finish_response(self) except -1:
        self.end_response()
        if self.answer_is_over():
            if self.running or not self.held_up():
                return self.run()
            # What the caller has left to do concerns the last request.
            self.server.call_soon_threadsafe(self._go_on)
        return 0

    cdef int end_response(self) except -1:
        """Send what ends the body; the connection's fate is decided."""
        if self.framing == CHUNKED:
            self.context.serializer.size = 0
            self.context.serializer.append(b"0\r\n\r\n", 5)
            self.send_piece(b"")
            # There is nothing left to write, nor to end.
            self.pause_due = False
        elif self.framing == LENGTH and self.remaining > 0:
            error_log.error(
                "the application sent %d bytes less than its "
                "Content-Length; the connection is closed", self.remaining
            )
            self.persist = False
        if self.log_entry is not None:
            self.log_response()
        self.drop_body()
        return 0

    cdef int next_request(self) except -1:
        return self.run() if self.answer_is_over() else 0

    cdef bint answer_is_over(self) except -1:
        """True if the connection persists."""
        if self.state == ENDED:
            return False
        self.state = IDLE if self.persist else ENDED
        if self.pause_due:
            # There is nothing left to write, but one may close.
            self.tell_pause()
        if self.state == IDLE:
            return True
        self.close_after_answer()
        return False

    cdef int close_after_answer(self) except -1:
        """What a client sends that does not expect this resets no answer."""
        if self.parser is not None and (
            self.parser.unread()
            or self.parser.head.keep_alive and not (self.draining or self.eof)
        ):
            return self.transport.close_lingering()
        return self.transport.close()

    cdef int drop_body(self) except -1:
        cdef RequestBody body = self.body
        self.body = None
        return body.close() if body is not None else 0

    cdef int fail_response(self) except -1:
        """The application raised: 500, or a cut if it is too late for it."""
        if self.state == RESPONDING:
            self.send_response(500, PLAIN_TEXT, SERVER_ERROR)
            return self.end_response()
        if self.state == STARTED:
            self.log_cut()
            self.drop_body()
            self.state = ENDED
            # Without a length only a reset tells that something is missing.
            if self.framing == UNTIL_CLOSE:
                # It must not take the answers before with it.
                self.transport.flush()
                return self.transport.abort()
            return self.close_after_answer()
        return 0

    # The access log.

    cdef int note_request(self) except -1:
        cdef RequestParser parser = self.parser
        cdef Span target = parser.head.target
        cdef Span line = Span(0, target.start + target.size)
        cdef int index
        cdef Field *field
        cdef str referer = ""
        cdef str agent = ""
        for index in range(parser.head.count):
            field = &parser.head.fields[index]
            if field.known == REFERER:
                referer = own_value(field, parser.at(0))
            elif field.known == USER_AGENT:
                agent = own_value(field, parser.at(0))
        self.log_entry = (
            f"{text_of(parser, line)} HTTP/1.{parser.head.minor}", referer,
            agent
        )
        return 0

    cdef int log_cut(self) except -1:
        """An answer that has begun will not come to its end."""
        if self.state == STARTED and self.log_entry is not None:
            self.log_response()
        return 0

    cdef int log_response(self) except -1:
        if self.context.access_log is None:
            return 0
        line, referer, agent = self.log_entry or ("-", "", "")
        self.log_entry = None
        peer = self.transport.getpeername()
        try:
            self.context.access_log(
                peer[0] if isinstance(peer, tuple) else "", line,
                self.status, self.sent, referer, agent
            )
        except Exception:
            error_log.exception("exception in the access log")
        return 0
