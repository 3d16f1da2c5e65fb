"""WSGI (PEP 3333) on HttpProtocol: in the loop, or in a pool of threads.

Threads do no I/O: a pool thread runs the application and hands what it
yields to the loop. An iterable is asked for more only while the client
reads; meanwhile it keeps its thread, and another one serves the others.
"""
import contextlib
import errno
import io
import logging
import os
import sys
import threading
import time
from collections import deque

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.contextvars cimport (
    PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
)
from cpython.dict cimport PyDict_DelItem, PyDict_SetItem
from cpython.ref cimport PyObject
from posix.stat cimport S_ISREG, fstat, struct_stat
from posix.unistd cimport close as c_close

from fasthttp._environ cimport EnvironTemplate, Loan
from fasthttp._http1 cimport HttpContext, HttpProtocol, LOGGED
from fasthttp._poller cimport Gate
from fasthttp._protocol cimport BaseTransport
from fasthttp._serializer cimport LENGTH, NO_BODY
from fasthttp._store cimport RequestBody, Store

from fasthttp._environ import environ_base
from fasthttp.errors import AppError, FastHttpError

cdef extern from "_socket.h":
    double fh_monotonic()
    double fh_thread_time()

cdef extern from "Python.h":
    # Of a pointer: as an object it would be held once more while counted.
    Py_ssize_t Py_REFCNT(PyObject *)

cdef enum:
    # How much one application may yield before others get their turn.
    STEP_BYTES = 131072
    # What a chunk costs besides its bytes.
    CHUNK_COST = 256
    SPILL_WATER = 262144
    # A file of so many bytes is read at once.
    COPY_MAX = 16384
    MAX_TEMPLATES = 64
    MAX_SPARES = 64
    # Clients may leave, before the calls that nobody waits for are looked for.
    MANY_GONE = 64

# An application that waits between its blocks lets others in.
cdef double STEP_SECONDS = 0.005
# So long a thread may keep the interpreter from those who wait for answers,
# not counting what it waits for itself.
# Measured, an application of 50 us: 94 us a request with 0.2 ms, 73 with 1.
cdef double BATCH_SECONDS = 0.001

cdef object error_log = logging.getLogger("fasthttp.error")
cdef str K_INPUT = sys.intern("wsgi.input")
cdef str K_LENGTH = sys.intern("CONTENT_LENGTH")
cdef str K_CODING = sys.intern("HTTP_TRANSFER_ENCODING")


class FileWrapper:
    """PEP 3333's wsgi.file_wrapper: an open file as an iterable."""

    def __init__(self, filelike, blksize=65536):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    # For who answers a Range: werkzeug would read all that is before it.

    def seekable(self):
        seekable = getattr(self.filelike, "seekable", None)
        return seekable is not None and seekable()

    def seek(self, *where):
        return self.filelike.seek(*where)

    def tell(self):
        return self.filelike.tell()

    def __iter__(self):
        return self

    def __next__(self):
        if data := self.filelike.read(self.blksize):
            return data
        raise StopIteration


class NoInput(io.BufferedIOBase):
    """wsgi.input of a request without a body; holds nothing, can be shared."""

    def readable(self):
        return True

    def seekable(self):
        return True

    def read(self, size=-1):
        return b""

    read1 = read

    def readinto(self, buffer):
        return 0

    readinto1 = readinto

    def seek(self, offset, whence=0):
        return 0

    def tell(self):
        return 0

    def close(self):
        pass


class NoErrors(io.TextIOBase):
    """wsgi.errors of a process that was started without stderr."""

    def write(self, text):
        return len(text)


@cython.no_gc
@cython.final
@cython.internal
cdef class OwnedFile:
    """A descriptor of our own, and what the file takes of a store."""

    cdef int fd
    cdef Store store
    cdef long long size

    def __cinit__(self, int fd, Store store=None):
        self.fd = fd
        self.store = store

    def __dealloc__(self):
        c_close(self.fd)
        if self.store is not None:
            self.store.give_back(0, self.size)


cdef class WsgiCall
cdef class PoolThread
cdef class ThreadPool


cdef class WsgiGateway:
    """Makes one protocol for each connection, all calling `app`."""

    cdef object app
    cdef HttpContext context
    cdef dict _base
    cdef dict _templates
    cdef str _last_remote       # one object for the clients of one address
    cdef WsgiCall _spare        # may serve again, as its next_spare
    cdef int _spares
    cdef ThreadPool pool

    def __init__(self, app, config, *, access_log=None):
        self.app = app
        self.context = HttpContext(config, access_log)
        self._templates = {}
        self._base = environ_base() | {
            K_INPUT: NoInput(),
            "wsgi.errors": NoErrors() if sys.stderr is None else sys.stderr,
            "wsgi.multithread": config.threads > 1,
            "wsgi.file_wrapper": FileWrapper,
        }

    def __call__(self, server, BaseTransport trans not None, mqueue):
        cdef WsgiProtocol protocol = WsgiProtocol.__new__(WsgiProtocol)
        cdef int port
        protocol.set_up(server, trans, self.context)
        protocol.gateway = self
        protocol.template = self.template_for(trans.getsockname())
        peer = trans.getpeername()
        if type(peer) is tuple:
            port = peer[1]
            if peer[0] != self._last_remote:
                self._last_remote = peer[0]
            protocol.remote_addr = self._last_remote
            protocol.remote_port = f"{port}"
        else:
            protocol.remote_addr = protocol.remote_port = ""
        return protocol

    def start(self):
        if self.context.config.threads and self.pool is None:
            self.pool = ThreadPool(self.context.config.threads)

    def has_thread(self, thread):
        return self.pool is not None and self.pool.has_thread(thread)

    def close(self, timeout=None):
        if self.pool is not None:
            self.pool.close(timeout)
            self.pool = None

    cdef EnvironTemplate template_for(self, object address):
        cdef EnvironTemplate template = self._templates.get(address)
        if template is None:
            if len(self._templates) == MAX_TEMPLATES:
                # A prefix may be routed here: any address is ours.
                self._templates.clear()
            template = EnvironTemplate(self._base, address)
            self._templates[address] = template
        return template


@cython.final
@cython.internal
cdef class WsgiProtocol(HttpProtocol):
    cdef WsgiGateway gateway
    cdef EnvironTemplate template
    cdef str remote_addr
    cdef str remote_port
    cdef dict environ
    cdef Loan loan
    cdef WsgiCall call

    # Nobody can subclass it: there are no hooks to call.

    cdef int connection_made(self) except -1:
        return self.await_request()

    cdef int connection_lost(self) except -1:
        return self.abandon()

    cdef int begin_request(self) except -1:
        self.environ = self.template.make(
            self.parser, self.remote_addr, self.remote_port
        )
        self.loan = self.template.loan
        self.template.loan = None
        return 0

    cdef int complete_request(self) except -1:
        cdef dict environ = self.environ
        cdef RequestBody body = self.body
        cdef Loan loan = self.loan
        cdef WsgiCall call
        self.environ = None
        self.loan = None
        self.body = None
        if body is not None:
            if loan is None:
                PyDict_SetItem(environ, K_INPUT, body.stream())
            else:
                loan.set_input(environ, body.stream())
            if self.parser.head.chunked:
                # Decoded and whole: its length is known after all.
                PyDict_SetItem(environ, K_LENGTH, str(body.size))
                PyDict_DelItem(environ, K_CODING)
        call = self.gateway._spare
        if call is None:
            call = WsgiCall(self.gateway)
        else:
            self.gateway._spare = call.next_spare
            self.gateway._spares -= 1
            call.next_spare = None
        call.protocol = self
        call.loop = self.server
        call.environ = environ
        call.loan = loan
        call.body = body
        self.call = call
        # The application's alone: it ends, and what is in it, with the call.
        environ = None
        if self.gateway.pool is None:
            call.run()
        else:
            self.gateway.pool.submit(call)
        return 0

    cdef int writable_again(self) except -1:
        if self.call is not None:
            self.call.go_on()
        return 0

    cdef int abandon_request(self) except -1:
        cdef WsgiCall call = self.call
        self.environ = None
        self.loan = None
        self.call = None
        if call is not None:
            call.protocol = None
            if call.thread is None and self.gateway.pool is not None:
                return self.gateway.pool.note_gone()
            call.go_on()
        return 0


# What the application's side hands to the loop's.
cdef enum Output:
    RESPOND = 0     # the whole body
    START = 1       # the body's length or -1
    WRITE = 2       # bytes of it
    WRITE_FILE = 3  # (OwnedFile, offset, count)
    FINISH = 4
    FAIL = 5
    PARK = 6        # more will come once the client has read


@cython.final
@cython.internal
cdef class WsgiCall:
    """One request in the application: from its call to close()."""

    cdef WsgiGateway gateway
    cdef WsgiProtocol protocol      # None once nothing more is sent
    cdef WsgiProtocol answered      # whose next request waits for close()
    cdef dict environ
    cdef Loan loan              # of the environ, if it may serve again
    cdef object method          # for the log, without the environ
    cdef object target
    cdef RequestBody body
    cdef object status          # a str
    cdef list headers
    cdef bint started
    cdef bint written           # by write(): some thread may yet be in it
    cdef bint lazy              # the iterable makes its blocks when asked
    cdef bint enough            # no more of the body will be sent
    cdef bint from_file         # which may be longer than its Content-Length
    cdef bint parked
    cdef bint done
    cdef object iterable
    cdef object iterator
    cdef object context
    cdef object start_response_method
    cdef object write_method
    cdef PoolThread thread
    cdef PoolThread resting     # the thread, if it has nothing more to run
    cdef bytes answer           # of a list: it leaves when the call is over
    cdef object loop
    cdef OwnedFile spill
    cdef WsgiCall next_spare

    def __init__(self, WsgiGateway gateway):
        self.gateway = gateway
        self.start_response_method = self.start_response
        self.write_method = self.write

    # For the application.

    def start_response(self, status, headers, exc_info=None):
        if exc_info is not None:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AppError("start_response is called a second time")
        if not isinstance(status, str):
            raise AppError(f"the status is not a str: {status!r}")
        if type(headers) is not list:
            raise AppError(f"the headers are not a list: {headers!r}")
        self.status = status
        self.headers = headers
        return self.write_method

    def write(self, data):
        if not isinstance(data, bytes):
            raise AppError(f"write() wants bytes, not {data!r}")
        self.written = True
        if data and not self.done:
            if self.is_alone():
                # It may write without end; who yields is not asked again.
                raise BrokenPipeError(errno.EPIPE, "the client has gone")
            if self.thread is None and self.protocol.transport.is_elsewhere():
                raise AppError(
                    "write() is called in another thread than the application,"
                    " which needs --threads 1 or more"
                )
            self.yielded(checked(data))

    cdef bint is_alone(self) noexcept:
        """Has its client gone? In the loop nobody can tell `protocol` yet."""
        # A thread may only look: the loop takes the protocol away meanwhile.
        return self.protocol is None or (
            self.thread is None and self.protocol.transport.is_broken()
        )

    # Where the application runs: in the loop or a pool thread.

    cdef int run(self) except -1:
        """Call the application, or go on with what it returned."""
        cdef WsgiProtocol protocol
        if self.context is None:
            self.context = PyContext_CopyCurrent()
        PyContext_Enter(self.context)
        try:
            if self.protocol is None:
                self.done = True
            elif self.iterator is None:
                self.call_application()
            if self.iterator is not None:
                self.step()
        except BaseException as error:
            if isinstance(error, SystemExit) and self.loop.is_forked():
                # In a child of the application's: nothing here is its own.
                os._exit(exit_status(error.code))
            try:
                if not self.is_alone() or (
                    not isinstance(error, BrokenPipeError)
                ):
                    self.log_fault()
            finally:
                self.emit(FAIL, None)
            if self.thread is None and isinstance(error, KeyboardInterrupt):
                raise
        finally:
            try:
                if self.done:
                    self.close()
                if self.environ is not None:
                    self.release_environ()
            finally:
                PyContext_Exit(self.context)
                # One in which nothing was set is as good as new.
                if self.done and len(self.context):
                    self.context = None
        if self.done and self.thread is None:
            protocol = self.protocol
            self.recycle()
            if protocol is not None:
                protocol.call = None
                protocol.next_request()
        return 0

    cdef int log_fault(self) except -1:
        if self.method is None and self.environ is not None:
            self.note_request()
        error_log.exception(
            "exception in the application: %s %s", self.method, self.target
        )
        return 0

    cdef int note_request(self) except -1:
        self.method = self.environ.get("REQUEST_METHOD")
        self.target = self.environ.get("RAW_URI")
        return 0

    cdef int call_application(self) except -1:
        self.lazy = True
        if self.thread is not None:
            # The loop must not look into what a thread may change.
            self.note_request()
        cdef object result = self.gateway.app(
            self.environ, self.start_response_method
        )
        self.iterable = result
        if not self.started:
            self.lazy = type(result) is not list and type(result) is not tuple
            if type(result) is list and len(<list>result) == 1:
                return self.emit(
                    RESPOND, checked((<list>result)[0])
                )
            self.from_file = type(result) is FileWrapper
            if self.from_file and self.emit_file(result):
                return 0
            if not self.lazy:
                self.start(sum([len(checked(part)) for part in result]))
        self.iterator = iter(result)
        return 0

    cdef int release_environ(self) except -1:
        """It may serve another request; the log has what it needs of it."""
        cdef dict environ
        if self.method is None and not self.done:
            self.note_request()
        if self.thread is None:
            return self.end_loan()
        # What the application left in it ends here, in its thread.
        environ = self.environ
        self.environ = None
        if self.loan is not None and self.loan.is_over(environ):
            self.environ = environ
        return 0

    cdef int end_loan(self) except -1:
        """In the loop's thread."""
        cdef Loan loan = self.loan
        cdef dict environ = self.environ
        self.loan = None
        self.environ = None
        if loan is not None:
            # An application that failed has not released it.
            if environ is not None and not loan.is_over(environ):
                environ = None
            return loan.come_back(environ)
        return 0

    cdef int step(self) except -1:
        """Ask for chunks until there are no more or enough for now.

        At first, for two: a response that is one block comes to its end.
        """
        cdef bint first = not self.started
        cdef Py_ssize_t budget = STEP_BYTES
        cdef double until = fh_monotonic() + STEP_SECONDS
        cdef bytes chunk
        cdef bint enough
        while self.protocol is not None:
            enough = self.enough
            # Without an exception at the end, which needs memory.
            block = next(self.iterator, self)
            if block is self:
                if not self.started:
                    self.start(0)
                return self.emit(FINISH, None)
            chunk = checked(block)
            if chunk:
                self.yielded(chunk)
            if enough:
                # Asked once more, as code may stand after its last yield.
                return self.emit(FINISH, None)
            budget -= PyBytes_GET_SIZE(chunk) + CHUNK_COST
            if not first and (budget <= 0 or fh_monotonic() >= until):
                return self.emit(PARK, None)
            first = False
        self.done = True
        return 0

    cdef int yielded(self, bytes data) except -1:
        if not self.started:
            self.start(-1)
        return self.emit(WRITE, data)

    cdef int start(self, long long length) except -1:
        self.emit(START, length)
        self.started = True
        return 0

    cdef bint emit_file(self, object wrapper) except -1:
        """Let the kernel send a regular file; False if it is none."""
        cdef struct_stat info
        cdef int fd
        cdef long long offset, size
        try:
            reader = reader_of(wrapper.filelike)
            if not reader.readable():
                return False
            reader.flush()
            fd = reader.fileno()
            offset = reader.tell()
        except (AttributeError, OSError, ValueError):
            return False
        # Without blocks: those of /proc and /sys, whose sizes are not true.
        if (
            fstat(fd, &info) < 0 or not S_ISREG(info.st_mode)
            or info.st_blocks == 0 or offset > info.st_size
        ):
            return False
        size = info.st_size - offset
        if size <= COPY_MAX:
            self.emit(RESPOND, os.pread(fd, size, offset))
            return True
        file = OwnedFile(os.dup(fd))
        self.start(size)
        self.emit(WRITE_FILE, (file, offset, size))
        self.emit(FINISH, None)
        return True

    cdef int close(self) except -1:
        """PEP 3333: close() is called in every case."""
        iterable = self.iterable
        self.iterable = self.iterator = None
        if type(iterable) is not list:
            try:
                close = getattr(iterable, "close", None)
                if close is not None:
                    if self.thread is None and self.protocol is not None:
                        self.protocol.transport.flush_soon()
                    close()
            except BaseException:
                error_log.exception("exception in close() of a response")
        if self.body is not None:
            self.body.close()
        return 0

    cdef int release_body(self) except -1:
        """In the loop's thread, after close()."""
        if self.body is not None:
            self.body.release()
            self.body = None
        return 0

    cdef int recycle(self) except -1:
        """Serve another request, unless somebody still holds on."""
        # First: what is in the environ holds the body.
        self.end_loan()
        self.release_body()
        self.protocol = self.method = self.target = None
        if (
            not self.written and self.gateway._spares < MAX_SPARES
            and Py_REFCNT(<PyObject *>self.start_response_method) == 1
            and Py_REFCNT(<PyObject *>self.write_method) == 1
        ):
            self.status = self.headers = self.spill = None
            self.started = self.done = self.parked = self.enough = False
            self.from_file = False
            self.next_spare = self.gateway._spare
            self.gateway._spare = self
            self.gateway._spares += 1
        else:
            self.start_response_method = self.write_method = None
        return 0

    # Between the two.

    cdef int emit(self, Output kind, object content) except -1:
        if kind == START or kind == RESPOND:
            if self.status is None:
                raise AppError("start_response was not called")
            if self.thread is not None:
                # Read in the loop, later; the list stays the application's.
                self.headers = self.headers[:]
        if kind == RESPOND or kind == FINISH or kind == FAIL:
            self.done = True
        if self.thread is None:
            return self.apply(kind, content)
        if kind == PARK:
            # Told when the thread rests, or it might be woken before.
            return 0
        if kind == RESPOND and not self.lazy:
            self.answer = content
            return 0
        cdef ThreadPool pool = self.thread.pool
        pool.put_out((self, kind, content))
        # Else more follows at once, or the thread's return.
        if self.lazy and kind != START:
            pool.tell(self.loop)
        return 0

    cdef int deliver(self, Output kind, object content) except -1:
        try:
            return self.apply(kind, content)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            self.log_fault()
            return self.apply(FAIL, None)

    cdef BaseTransport enter(self):
        """So that many small writes are one; the transport to leave."""
        if self.protocol is not None and self.protocol.transport.enter():
            return self.protocol.transport
        return None

    # In the loop.

    cdef int apply(self, Output kind, object content) except -1:
        cdef WsgiProtocol protocol = self.protocol
        cdef OwnedFile file
        if kind == PARK:
            self.parked = True
            if protocol is None or not protocol.transport.full():
                self.loop.call_soon(self.go_on)
            return 0
        if protocol is None:
            return 0
        if self.from_file:
            # PEP 3333: sent until its end or the Content-Length is reached.
            protocol.overrun = LOGGED
        if kind == RESPOND:
            protocol.send_response(self.status, self.headers, content)
            protocol.end_response()
        elif kind == START:
            protocol.send_head(self.status, self.headers, content)
            self.enough = protocol.framing == NO_BODY
            return 0
        elif kind == WRITE:
            return self.apply_write(protocol, content)
        elif kind == WRITE_FILE:
            file = content[0]
            return protocol.send_file(file, file.fd, content[1], content[2])
        elif kind == FINISH:
            protocol.end_response()
        else:
            protocol.fail_response()
        # What the queue has not sent yet has its own hold on the file.
        self.spill = None
        if self.thread is not None:
            self.protocol = None
            self.answered = protocol
            # Where another request may come, it waits for close(), which
            # a list has not.
            if not (protocol.persist and self.lazy):
                self.let_go()
        return 0

    cdef int let_go(self) except -1:
        """The connection is free for its next request, or for its end."""
        cdef WsgiProtocol protocol = self.answered
        if protocol is not None:
            self.answered = protocol.call = None
            protocol.next_request()
        return 0

    cdef int apply_write(self, WsgiProtocol protocol, bytes data) except -1:
        cdef BaseTransport transport = protocol.transport
        if transport.queued() > SPILL_WATER:
            # Only write() can come here: it cannot be made to wait.
            self.spill_over(data)
            return protocol.send_file(
                self.spill, self.spill.fd, self.spill.size - len(data),
                len(data)
            )
        protocol.send_data(data)
        if protocol.framing == LENGTH and protocol.remaining == 0:
            self.enough = True
        # PEP 3333: a block leaves while the next one is made. A thread's do
        # so anyway.
        if self.lazy and self.thread is None:
            return transport.flush_soon()
        return 0

    cdef int spill_over(self, bytes data) except -1:
        cdef Store store = self.gateway.context.store
        if self.spill is None:
            import tempfile
            with tempfile.TemporaryFile() as file:
                self.spill = OwnedFile(os.dup(file.fileno()), store)
        cdef long long at = self.spill.size
        self.spill.size += len(data)
        if not store.spool(len(data)):
            raise OSError(
                errno.EDQUOT, "what write() gave cannot wait for the client:"
                f" limit_spooled ({store.limit_spooled}) is reached"
            )
        while data:
            written = os.pwrite(self.spill.fd, data, at)
            at += written
            data = data[written:]
        return 0

    def go_on(self):
        cdef BaseTransport transport
        if self.parked:
            self.parked = False
            if self.thread is None:
                transport = self.enter()
                try:
                    self.run()
                finally:
                    if transport is not None:
                        transport.leave()
            else:
                self.gateway.pool.resume(self)


cdef object reader_of(object filelike):
    """The plain file whose bytes `filelike.read` returns, or None.

    A gzip file has a descriptor too, but not of the bytes it reads; a
    wrapper such as Django's File hands out the read() of its file.
    """
    reader = getattr(filelike.read, "__self__", None)
    raw = reader
    if type(reader) in (io.BufferedReader, io.BufferedRandom):
        raw = reader.raw
    # A class made from one of these may read what it likes.
    return reader if type(raw) is io.FileIO else None


cdef int exit_status(object code) except? 255:
    """As of sys.exit(), after what is still to be written."""
    cdef int status = 1
    with contextlib.suppress(Exception):
        if code is None or isinstance(code, int):
            status = (code or 0) & 255
        else:
            print(code, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return status


cdef bytes checked(object chunk):
    if type(chunk) is bytes:
        return chunk
    if isinstance(chunk, bytes):
        return bytes(memoryview(chunk))
    raise AppError(f"the body is not made of bytes: {chunk!r}")


@cython.final
@cython.internal
cdef class PoolThread:
    """Runs a call from its begin to close(), and hands the loop its output.

    What an application keeps in threading.local is that call's.
    """

    cdef ThreadPool pool
    cdef Gate gate              # opened when the call may run, or to end
    cdef WsgiCall call
    cdef double until           # when to look for how long it has run
    cdef double enough          # processor time, then it rests
    cdef object thread

    def __init__(self, ThreadPool pool, int number):
        self.pool = pool
        self.gate = Gate()
        self.thread = threading.Thread(
            target=self.work, name=f"fasthttp-{number}", daemon=True
        )
        self.thread.start()

    def work(self):
        cdef ThreadPool pool = self.pool
        cdef WsgiCall call
        # A program's end need not wait for it, but for threads of the
        # application, which inherit this.
        threading.current_thread()._daemonic = False
        while True:
            if not pool.ending:
                self.gate.wait()
            if self.call is None:
                return
            self.until = fh_monotonic() + BATCH_SECONDS
            self.enough = fh_thread_time() + BATCH_SECONDS
            rests = False
            while not rests:
                call = self.call
                try:
                    call.run()
                except BaseException:
                    # A logger may fail, too; the thread must not end.
                    sys.excepthook(*sys.exc_info())
                    call.done = True
                    call.context = None
                if call.done:
                    self.call = None
                    if self.has_time():
                        self.call = pool.next_call()
                    if self.call is not None:
                        self.call.thread = self
                rests = self.call is None or self.call is call
                pool.returned(call, self if rests else None)
                call = None

    cdef bint has_time(self) noexcept:
        """Measured, 16 threads that sleep: 0.978 of what they can do.

        When each rested after its sleep, until the loop came, it was 0.957.
        """
        cdef double now = fh_monotonic()
        if now >= self.until:
            self.until = now + self.enough - fh_thread_time()
        return now < self.until


@cython.final
@cython.internal
cdef class ThreadPool:
    """Lets `count` calls run at a time, each in a thread of its own.

    A stream whose client has to read keeps its thread, but lets another run:
    so there may be more threads than `count`. A thread goes on with what
    waits here by itself: measured, 72 us of a small request in place of 12
    when each was handed over by the loop. What is done leaves when the
    thread rests or waits for something.
    """

    cdef int count
    cdef int running
    cdef list threads
    cdef list idle              # without a call
    cdef object waiting         # calls for any thread
    cdef int gone               # clients of these, since they were looked at
    cdef object ready           # calls that have one, to go on
    cdef bint had_ready
    # For the loop: (call, Output, content), or a call that was run.
    cdef object outbox
    # Their methods: looked up for each request, 100 instructions more a call.
    cdef object put_waiting
    cdef object next_waiting
    cdef object put_out
    cdef object next_out
    cdef bint told              # the loop, that there is something in it
    cdef bint ending

    def __init__(self, int count):
        self.count = count
        self.waiting = deque()
        self.put_waiting = self.waiting.append
        self.next_waiting = self.waiting.popleft
        self.ready = deque()
        self.outbox = deque()
        self.put_out = self.outbox.append
        self.next_out = self.outbox.popleft
        self.threads = []
        try:
            for _ in range(count):
                self.another()
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError):
                raise FastHttpError(
                    f"cannot start {count} threads: {error}"
                ) from None
            raise
        self.idle = list(self.threads)

    cdef PoolThread another(self):
        cdef PoolThread thread = PoolThread(self, len(self.threads) + 1)
        self.threads.append(thread)
        return thread

    cdef bint has_thread(self, object thread):
        cdef PoolThread each
        for each in self.threads:
            if each.thread is thread:
                return True
        return False

    # In a thread.

    cdef WsgiCall next_call(self):
        """None if a stream is to go on: that is the loop's to say."""
        if self.ready or not self.waiting:
            return None
        try:
            return self.next_waiting()
        except IndexError:
            return None

    cdef int returned(self, WsgiCall call, PoolThread resting) except -1:
        """Until the loop is told: a thread that ended here would be missed."""
        cdef bint is_out = False
        call.resting = resting
        while True:
            try:
                if not is_out:
                    self.put_out(call)
                    is_out = True
                return self.tell(call.loop)
            except BaseException:
                # There is no memory, or another thread has raised it here.
                time.sleep(0.01)

    cdef int tell(self, object loop) except -1:
        if not self.told:
            self.told = True
            try:
                loop.call_soon_threadsafe(self.deliver)
            except BaseException:
                # For write() the stack may be full: the next one tells it.
                self.told = False
                raise
        return 0

    # In the loop.

    cdef int submit(self, WsgiCall call) except -1:
        self.put_waiting(call)
        return self.run_more(call.loop)

    cdef int note_gone(self) except -1:
        """Of calls whose clients have left, not more wait than of others."""
        cdef WsgiCall call
        self.gone += 1
        if self.gone <= MANY_GONE or 2 * self.gone <= len(self.waiting):
            return 0
        self.gone = 0
        for _ in range(len(self.waiting)):
            try:
                call = self.next_waiting()
            except IndexError:
                # Threads have taken some.
                return 0
            if call.protocol is not None:
                self.put_waiting(call)
            else:
                call.close()
                call.recycle()
        return 0

    cdef int resume(self, WsgiCall call) except -1:
        self.ready.append(call)
        return self.run_more(call.loop)

    cdef int run_more(self, object loop) except -1:
        """Streams and others by turns: a stream comes again and again."""
        cdef WsgiCall call
        cdef PoolThread thread
        while self.running < self.count:
            if self.ready and not (
                self.had_ready and self.waiting and self.has_idle(loop)
            ):
                self.had_ready = True
                call = self.ready.popleft()
                thread = call.thread
            elif self.waiting and self.has_idle(loop):
                self.had_ready = False
                try:
                    call = self.next_waiting()
                except IndexError:
                    # A thread has taken it.
                    return 0
                thread = self.idle.pop()
                thread.call = call
                call.thread = thread
            else:
                return 0
            self.running += 1
            try:
                loop.open_soon(thread.gate)
            except MemoryError:
                # A thread that counts as running has to run.
                thread.gate.open()
        return 0

    cdef bint has_idle(self, object loop) except -1:
        """If all others wait for clients, another one; False: none."""
        if not self.idle:
            try:
                self.idle.append(self.another())
            except RuntimeError as error:
                loop._warn_seldom("requests wait for streams: %s", error)
                return False
        return True

    def deliver(self):
        cdef WsgiCall call, last = None
        cdef BaseTransport transport = None
        # First: what comes from now on is told again.
        self.told = False
        try:
            for _ in range(len(self.outbox)):
                item = self.next_out()
                call = item if type(item) is WsgiCall else item[0]
                if call is not last:
                    if transport is not None:
                        transport.leave()
                    transport = call.enter()
                    last = call
                if call is not item:
                    call.deliver(item[1], item[2])
                    continue
                try:
                    if call.answer is not None:
                        call.deliver(RESPOND, call.answer)
                finally:
                    call.answer = None
                    if transport is not None:
                        transport.leave()
                    last = transport = None
                    self.take_back(call)
        finally:
            if transport is not None:
                transport.leave()
            if self.outbox and call is not None:
                self.tell(call.loop)

    cdef int take_back(self, WsgiCall call) except -1:
        cdef object loop = call.loop
        cdef PoolThread resting = call.resting
        call.resting = None
        try:
            if not call.done:
                call.apply(PARK, None)
            else:
                if call.protocol is not None:
                    # It could not even be told that it failed.
                    call.protocol.transport.abort()
                    call.protocol.call = None
                call.let_go()
                call.thread = None
                call.recycle()
        finally:
            if resting is not None:
                self.running -= 1
                if resting.call is None:
                    self.rest(resting)
                self.run_more(loop)
        return 0

    cdef int rest(self, PoolThread thread) except -1:
        if len(self.idle) < self.count:
            self.idle.append(thread)
        else:
            # It ends, having nothing to do.
            self.threads.remove(thread)
            thread.gate.open()
        return 0

    def close(self, timeout=None):
        """After the loop has ended: what is parked comes to its close()."""
        cdef PoolThread thread
        cdef WsgiCall call
        waiting = list(self.waiting)
        self.waiting.clear()
        for call in waiting:
            call.close()
        for thread in self.threads:
            call = thread.call
            if call is not None:
                call.protocol = None
        self.ending = True
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self.threads:
            thread.gate.open()
        for thread in self.threads:
            left = None
            if deadline is not None:
                left = max(deadline - time.monotonic(), 0)
            thread.thread.join(left)
