"""Non-blocking connections: receive, queue, flush, close.

`Connections` is what all connections of one loop share; a `Transport` owns
one descriptor and every byte not yet sent on it.
"""
import logging
import os
import queue
import sys
import threading

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.errno cimport (
    EAGAIN, ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN,
    ENETUNREACH, ENOPROTOOPT, EOPNOTSUPP, EPROTO, ETIMEDOUT, errno
)
from libc.string cimport memcmp, memcpy, memmove

from fasthttp._poller cimport ERR, HUP, IN, OUT, Events
from fasthttp._protocol cimport BaseProtocol, BaseTransport

cdef extern from "_socket.h":
    struct sockaddr:
        pass
    struct in_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct in6_addr:
        pass
    struct sockaddr_in6:
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        in6_addr sin6_addr
        unsigned int sin6_scope_id
    struct iovec:
        void *iov_base
        size_t iov_len
    struct linger_option "linger":
        int l_onoff
        int l_linger
    int AF_INET, AF_INET6, MSG_MORE, MSG_NOSIGNAL, MSG_PEEK
    int SHUT_WR, SOL_SOCKET, SO_LINGER
    unsigned short ntohs(unsigned short)
    unsigned int ntohl(unsigned int)
    const char *inet_ntop(int, const void *, char *, socklen_t)
    ssize_t recv(int, void *, size_t, int) nogil
    ssize_t send(int, const void *, size_t, int) nogil
    int getsockname(int, sockaddr *, socklen_t *)
    int shutdown(int, int) nogil
    int c_close "close"(int) nogil
    int setsockopt(int, int, int, const void *, socklen_t)
    int fh_bound_unsent(int, int)
    int fh_accept(int, sockaddr_storage *, socklen_t *)
    ssize_t fh_sendfile(int, int, long long, size_t)
    double fh_monotonic()

cdef extern from "_flusher.h":
    void fh_flusher_init(fh_flusher *)
    void fh_flusher_destroy(fh_flusher *)
    void fh_flusher_hold(fh_flusher *, fh_piece)
    int FH_SEND_FLAGS
    void fh_piece_send(fh_piece *)
    ssize_t fh_send_parts(int, iovec *, int, int)
    void fh_flusher_take(fh_flusher *, int)
    void fh_flusher_end(fh_flusher *)
    void fh_flusher_run(fh_flusher *) nogil

cdef extern from "_ring.h":
    void fh_ring_open(fh_ring *)
    void fh_ring_close(fh_ring *)
    void fh_send_row(fh_ring *, fh_piece *, int)

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

cdef enum:
    CLOSING = 0x1     # close once everything queued is sent
    LINGERING = 0x2   # sent all and FIN; reading what the peer still sends
    WILL_LINGER = 0x4
    BROKEN = 0x8      # the descriptor is of no more use
    CLOSED = 0x10
    EOF_SEEN = 0x20
    PAUSED = 0x40     # the protocol wants no more data
    THROTTLED = 0x80  # more than HIGH_WATER unsent
    BLOCKED = 0x100   # the kernel took only a part
    DIRTY = 0x200     # in Connections._dirty
    RESET = 0x400     # close with RST
    LOST = 0x800      # the descriptor is somebody else's
    BOUND = 0x1000    # the kernel holds little of what it has not sent
    WAITING = 0x2000  # in Connections._waiting
    ENTERED = 0x4000  # its turn was begun by enter()

# Transport._watched: not by the poller, which would tell it again and again.
cdef int HUNG_UP = -2

cdef enum:
    HIGH_WATER = 65536
    LOW_WATER = 16384
    SHARED_SIZE = 131072
    HELD_MAX = 65536
    # Of the receive buffer, what a row takes before it is delivered.
    ROW_BYTES = 32768
    COPY_MAX = 16384
    TAIL_MAX = 131072
    IOV_COUNT = 64
    TURN_BYTES = 4194304
    MESSAGE_COST = 512
    # Of so many connections the kernel may hold much that is not yet sent.
    # Measured, 1 MB a request: 215 us with 1 MB held, 350 us with 128 KB.
    MANY_BLOCKED = 128
    LITTLE_UNSENT = 131072

# RFC 9112 section 9.6: how long to read on after the last answer.
cdef double LINGER_IDLE = 2.0
cdef double LINGER_TOTAL = 30.0
# What accept(2) fails with for one client's sake, or for nothing.
cdef tuple ONE_CLIENTS = (
    EINTR, ECONNABORTED, EPROTO, ENETDOWN, ENETUNREACH, EHOSTUNREACH,
    EHOSTDOWN, ENOPROTOOPT, EOPNOTSUPP, ETIMEDOUT,
)
# Seconds without progress after which a reader is one to do without.
cdef double STALLED = 1.0

cdef object error_log = logging.getLogger("fasthttp.error")


@cython.final
@cython.internal
cdef class FileSegment:
    cdef object owner
    cdef int fd
    cdef long long offset
    cdef long long count


@cython.final
cdef class Connections:
    def __cinit__(self, server, poller):
        cdef Py_ssize_t rx_size = server.RX_CHUNKSIZE
        if rx_size < 1:
            raise ValueError("the receive buffer needs at least one byte")
        self.server = server
        self._handlers = []
        self.write_timeout = server.WRITE_TIMEOUT
        self.max_queued = server.MAX_QUEUED
        self.max_queued_total = server.MAX_QUEUED_TOTAL
        self.linger_total = LINGER_TOTAL
        self._poller = poller
        self._dirty = []
        self._waiting = []
        self._rx_size = rx_size
        self._rx = <char *>PyMem_Malloc(rx_size + ROW_BYTES)
        self._tx = <char *>PyMem_Malloc(SHARED_SIZE)
        if self._rx is NULL or self._tx is NULL:
            raise MemoryError
        fh_flusher_init(&self._flusher)
        if poller.joins_sends:
            fh_ring_open(&self._ring)
        self.now = fh_monotonic()

    def __dealloc__(self):
        fh_flusher_destroy(&self._flusher)
        fh_ring_close(&self._ring)
        PyMem_Free(self._rx)
        PyMem_Free(self._tx)

    def start(self):
        self._thread = PyThread_get_thread_ident()
        if self._flusher_thread is None:
            flusher = threading.Thread(
                target=self._run_flusher, name="fasthttp-flusher", daemon=True
            )
            flusher.start()
            self._flusher_thread = flusher

    def set_handler(self, int fd, handler):
        if fd < 0:
            raise ValueError(f"{fd} is no descriptor")
        while fd >= len(self._handlers):
            self._handlers.append(None)
        self._handlers[fd] = handler

    cdef object handler_of(self, int fd):
        return self._handlers[fd] if fd < len(self._handlers) else None

    def dispatch(self, Events events not None):
        cdef object handler
        cdef Py_ssize_t at
        self.now = fh_monotonic()
        self._holding = events._count > 1
        for at in range(events._count):
            handler = self.handler_of(events._ready[at].data.fd)
            if type(handler) is Transport:
                (<Transport>handler).on_event(events._ready[at].events)
            elif handler is not None:
                handler()
        self.deliver()
        self._holding = False
        self.send_held()
        return self.now

    cdef int add_to_row(
        self, Transport transport, const char *data, Py_ssize_t size
    ) except -1:
        """Bytes at `data` of the receive buffer are for `transport`.

        Several are received for, then their protocols run, then they send:
        each code finds itself in the processor's caches. Measured, hello:
        0.97 of the time.
        """
        Py_INCREF(transport)
        self._row[self._row_count] = Part(<PyObject *>transport, data, size)
        self._row_count += 1
        self._rx_used += (size + 63) & ~63
        if self._row_count == FH_ROW or self._rx_used >= ROW_BYTES:
            self.deliver()
        return 0

    cdef int deliver(self) except -1:
        cdef Transport transport
        cdef Part *part
        while self._row_at < self._row_count:
            part = &self._row[self._row_at]
            self._row_at += 1
            transport = <Transport>part.transport
            Py_DECREF(transport)
            transport.take(part.data, part.size)
        self._row_at = self._row_count = 0
        self._rx_used = 0
        return 0

    def flush(self):
        cdef list dirty
        cdef Transport transport
        if self._current is not None:
            # Who entered has not left, as after an exception.
            self._current.leave()
        if self._dirty:
            dirty = self._dirty
            self._dirty = []
            for transport in dirty:
                transport._flags &= ~DIRTY
                self.begin(transport)
                transport.end()
        if self.held > self.max_queued_total > 0:
            self.shed()
        return bool(self._dirty)

    cdef int shed(self) except -1:
        """Cut stalled readers, the longest first, to come below the limit."""
        cdef Transport transport
        cdef list stalled = []
        cdef double last = self.now - STALLED
        for transport in self.transports():
            if transport._held and 0 < transport._stalled_since <= last:
                stalled.append(
                    (transport._stalled_since, len(stalled), transport)
                )
        stalled.sort()
        for _, _, transport in stalled:
            if self.held <= self.max_queued_total:
                break
            self.server._warn_seldom(
                "%d bytes wait for clients to read them, more than"
                " limit_queued_total (%d): closing those that read nothing",
                self.held, self.max_queued_total
            )
            transport._flags |= BROKEN | RESET
            transport.finish()
        return 0

    def accept(self, int listener, object factory, Py_ssize_t limit):
        cdef sockaddr_storage peer
        cdef socklen_t size
        cdef int failure = 0
        cdef int fd
        while limit > 0:
            limit -= 1
            size = sizeof(peer)
            fd = fh_accept(listener, &peer, &size)
            if fd >= 0:
                self.adopt(fd, &peer, size, factory)
            elif errno == EAGAIN:
                break
            elif errno not in ONE_CLIENTS:
                failure = errno
                break
        self.deliver()
        return failure

    cdef int adopt(
        self, int fd, sockaddr_storage *peer, socklen_t size, object factory
    ) except -1:
        cdef Transport transport = Transport.__new__(Transport, self)
        cdef object protocol
        cdef str where = "prot()"
        cdef object stale = self.handler_of(fd)
        if type(stale) is Transport:
            # The application has closed it, and the number came again.
            (<Transport>stale)._flags |= LOST | BROKEN
            (<Transport>stale).finish()
        transport._fd = fd
        transport._peername = address_of(peer, size)
        self.set_handler(fd, transport)
        self.count += 1
        self.begin(transport)
        try:
            protocol = factory(self.server, transport, transport)
            if not isinstance(protocol, BaseProtocol):
                raise TypeError(f"{protocol!r} is not a BaseProtocol")
            transport._protocol = <BaseProtocol>protocol
            where = "on_new_connection"
            transport._protocol.connection_made()
            if transport._queued > HIGH_WATER:
                transport.press()
        except BaseException:
            transport.fail(where)
        if transport._flags or transport._queued or transport.has_unsent():
            transport.end()
        else:
            # Who asks once is answered and gone before epoll knows it.
            self._current = None
        if self.server.draining:
            return self.drain_one(transport)
        return transport.receive()

    cdef object local_address(self, sockaddr_storage *local, socklen_t size):
        """Our side has few addresses: mostly it is the last one again."""
        if self._local is None or memcmp(&self._raw_local, local, size) != 0:
            self._raw_local = local[0]
            self._local = address_of(local, size)
        return self._local

    def sweep(self):
        cdef object handler
        cdef Transport transport
        cdef list due = []
        cdef double last = 0
        # As of dispatch(): what came since has not been looked at.
        if self.write_timeout > 0:
            last = self.now - self.write_timeout
        for handler in self._handlers:
            if type(handler) is not Transport:
                continue
            transport = <Transport>handler
            if (
                0 < transport._deadline <= self.now
                or 0 < transport._stalled_since <= last
            ):
                due.append(transport)
        for transport in due:
            self.begin(transport)
            if not transport._flags & CLOSED:
                transport.expire()
            transport.end()

    def drain(self):
        cdef Transport transport
        for transport in self.transports():
            self.drain_one(transport)
        self.deliver()

    cdef int drain_one(self, Transport transport) except -1:
        """Tell it of the stop, behind what its client has sent before."""
        if transport._protocol is not None and (
            not transport._protocol.reads_on
        ):
            transport.receive()
            self.deliver()
        self.begin(transport)
        try:
            if not transport._flags & (CLOSING | BROKEN | CLOSED):
                transport._protocol.drain()
        except BaseException:
            transport.fail("on_shutdown")
        transport.end()
        return transport.receive()

    def close_copies(self):
        """In a child: of descriptors; the parent goes on with its own."""
        cdef Transport transport
        for transport in self.transports():
            transport._flags |= BROKEN | CLOSED
            c_close(transport._fd)
            transport._fd = -1
        self._handlers = []
        fh_ring_close(&self._ring)

    def abort(self):
        cdef Transport transport
        cdef object failure = None
        for transport in self.transports():
            transport._flags |= BROKEN
            try:
                transport.finish()
            except BaseException as error:
                failure = error
        self.deliver()
        fh_ring_close(&self._ring)
        fh_flusher_end(&self._flusher)
        if self._flusher_thread is not None:
            self._flusher_thread.join()
        if failure is not None:
            raise failure

    cdef int begin(self, Transport transport) except -1:
        """What it writes until its end() gathers in the shared buffer."""
        if self._current is not None:
            self._current.leave()
        if transport._flags & WAITING:
            self.send_held()
        transport._flags &= ~ENTERED
        self._current = transport
        self._tx_start = self._tx_used
        return 0

    cdef int lend(self, Transport transport) except -1:
        """Let the flusher send what the current transport has written.

        More may be added to it. Measured, of 16 chunks of 4 KB: 18 calls of
        send a response without, 1 with.
        """
        cdef fh_piece piece
        transport.describe_written(&piece)
        fh_flusher_hold(&self._flusher, piece)
        self._lent = True
        return 0

    def _run_flusher(self):
        with nogil:
            fh_flusher_run(&self._flusher)

    cdef int take_back(self) except -1:
        """End lend(); 0 or the errno of a send."""
        cdef int at = len(self._waiting)
        cdef fh_piece *piece = &self._flusher.pieces[at]
        cdef char *data = self._tx + self._tx_start
        fh_flusher_take(&self._flusher, at)
        self._lent = False
        self._tx_used -= piece.sent
        memmove(data, data + piece.sent, self._tx_used - self._tx_start)
        return piece.failure

    cdef int hold(self, Transport transport) except -1:
        """Send its bytes with those of others, as a rule at the turn's end.

        A client that waits is woken by what it gets, which is dear; those
        that come next find it awake. Measured, 64 connections: Flask 179 us
        a request instead of 220, an application of 50 us 67 instead of 83.
        """
        self.lend(transport)
        self._lent = False
        self._current = None
        transport._flags |= WAITING
        self._waiting.append(transport)
        if len(self._waiting) == FH_ROW or self._tx_used > HELD_MAX:
            self.send_held()
        return 0

    cdef int send_held(self) except -1:
        cdef Transport current = self._current
        cdef Transport transport
        cdef list waiting
        cdef int at = 0
        if not self._waiting:
            return 0
        if current is not None:
            current.keep_unsent()
            self._current = None
        # Made first: a collection may run finalizers that write.
        waiting = []
        waiting, self._waiting = self._waiting, waiting
        fh_flusher_take(&self._flusher, 0)
        for transport in waiting:
            transport.prepare(&self._flusher.pieces[at])
            at += 1
        fh_send_row(&self._ring, self._flusher.pieces, at)
        at = 0
        for transport in waiting:
            transport.keep_rest(&self._flusher.pieces[at])
            at += 1
        self._tx_used = 0
        for transport in waiting:
            if not transport.at_rest():
                self.begin(transport)
                transport.settle()
        self._current = current
        self._tx_start = self._tx_used
        return 0

    def transports(self):
        return [
            handler for handler in self._handlers
            if type(handler) is Transport
        ]


def tell(log, *args, **about):
    try:
        log(*args, **about)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        # A filter or handler of the program's: the loop must not end.
        sys.excepthook(*sys.exc_info())
    return 0


cdef Py_ssize_t put_ipv4(char *text, const unsigned char *parts) noexcept:
    """Measured: 60 instructions where inet_ntop(3) takes 1,740."""
    cdef Py_ssize_t at = 0
    cdef int i
    cdef unsigned char part
    for i in range(4):
        part = parts[i]
        if part >= 100:
            text[at] = <char>(c"0" + part // 100)
            at += 1
        if part >= 10:
            text[at] = <char>(c"0" + part // 10 % 10)
            at += 1
        text[at] = <char>(c"0" + part % 10)
        text[at + 1] = c"."
        at += 2
    return at - 1


cdef object address_of(sockaddr_storage *peer, socklen_t size):
    cdef char text[64]
    cdef sockaddr_in *v4 = <sockaddr_in *>peer
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>peer
    cdef Py_ssize_t length
    if peer.ss_family == AF_INET:
        length = put_ipv4(text, <const unsigned char *>&v4.sin_addr)
        return (PyUnicode_DecodeASCII(text, length, NULL), ntohs(v4.sin_port))
    if peer.ss_family == AF_INET6:
        inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text))
        return (
            (<bytes>text).decode("ascii"), ntohs(v6.sin6_port),
            ntohl(v6.sin6_flowinfo), v6.sin6_scope_id,
        )
    return ""


@cython.final
cdef class Transport(BaseTransport):
    def __cinit__(self, Connections owner not None):
        self._owner = owner
        self._watched = -1
        self._fd = -1

    def fileno(self):
        return self._fd

    cpdef object getpeername(self):
        return self._peername

    cpdef object getsockname(self):
        cdef sockaddr_storage local
        cdef socklen_t size = sizeof(local)
        if getsockname(self._fd, <sockaddr *>&local, &size) < 0:
            raise OSError(errno, os.strerror(errno))
        return self._owner.local_address(&local, size)

    # The seed's message queue: what is put in is sent, what is unsent can
    # be taken back.

    def put_nowait(self, data):
        self.write(data)

    def get_nowait(self):
        self.keep_unsent()
        if self._first >= len(self._queue or ()) or self._sent:
            raise queue.Empty
        item = self._queue[self._first]
        if type(item) is not bytes:
            raise queue.Empty
        self.consume(len(item))
        self.mark_dirty()
        return item

    def empty(self):
        return self.queued() == 0

    cpdef Py_ssize_t queued(self) except -1:
        cdef Connections owner = self._owner
        cdef Py_ssize_t size = self._queued
        if owner._current is self:
            size += owner._tx_used - owner._tx_start
            if self._tail is not None:
                size += PyBytes_GET_SIZE(self._tail)
        return size

    cpdef bint full(self) except -1:
        cdef Connections owner = self._owner
        cdef Py_ssize_t size = self._queued
        # The tail leaves when the turn ends, or as soon as more is written.
        if owner._current is self:
            size += owner._tx_used - owner._tx_start
        if size <= HIGH_WATER:
            return False
        self._flags |= THROTTLED
        self.mark_dirty()
        return True

    cpdef int write(self, data) except -1:
        cdef Py_ssize_t size
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        if self.is_elsewhere():
            self._owner.server.call_soon_threadsafe(self.write, data)
            return 0
        size = PyBytes_GET_SIZE(data)
        if size == 0 or self._flags & (CLOSING | BROKEN | CLOSED):
            if self._flags & BROKEN:
                # Who writes until it is told to pause must be told.
                self.tell_full()
            return 0
        # One block of any size may wait, and the few bytes that frame it.
        if self._held - self._largest > self._owner.max_queued > 0:
            size = self._held
            self.abort()
            return tell(
                error_log.warning, "%s: closed: %d bytes wait to be read, more"
                " than limit_queued (%d)",
                self._peername, size, self._owner.max_queued
            )
        if (
            self._owner._current is self and self._queued == 0
            and self._tail is None and size <= TAIL_MAX
        ):
            self._tail = data
            return 0
        self.keep_unsent()
        self.enqueue(data, size)
        if self._queued > HIGH_WATER:
            self.press()
        return self.mark_dirty()

    cdef int press(self) except -1:
        """Much is queued: send now; if that does not help, say so."""
        self.flush()
        if self._queued > HIGH_WATER:
            self.tell_full()
        return 0

    cdef int tell_full(self) except -1:
        if not self._flags & (THROTTLED | CLOSED) and (
            self._protocol is not None
        ):
            self._flags |= THROTTLED
            try:
                self._protocol.pause_writing()
            except BaseException:
                self.fail("on_pause_writing")
        return 0

    cdef int write_raw(self, const char *data, Py_ssize_t size) except -1:
        cdef Connections owner = self._owner
        cdef bytes copied
        if (
            owner._current is not self or self._queued
            or self._tail is not None or size > SHARED_SIZE - owner._tx_start
            or self._flags & (CLOSING | BROKEN | CLOSED)
        ):
            return self.write(PyBytes_FromStringAndSize(data, size))
        if owner._tx_used + size > SHARED_SIZE:
            # What is not taken is queued in a list; that a collection of
            # garbage may begin then, and its finalizers use the serializer.
            copied = PyBytes_FromStringAndSize(data, size)
            self.flush_shared()
            return self.write_raw(PyBytes_AS_STRING(copied), size)
        memcpy(owner._tx + owner._tx_used, data, size)
        owner._tx_used += size
        return 0

    cpdef int write_file(
        self, object owner, int fd, long long offset, long long count
    ) except -1:
        cdef FileSegment segment
        if count <= 0 or self._flags & (CLOSING | BROKEN | CLOSED):
            return 0
        segment = FileSegment.__new__(FileSegment)
        segment.owner = owner
        segment.fd = fd
        segment.offset = offset
        segment.count = count
        self.keep_unsent()
        self.enqueue(segment, count)
        return self.mark_dirty()

    cdef bint is_elsewhere(self) noexcept:
        """Is this thread not the loop's?"""
        return PyThread_get_thread_ident() != self._owner._thread

    cdef bint is_broken(self) noexcept:
        """Is nothing sent any more, though the protocol is not told yet?"""
        return self._flags & (BROKEN | CLOSED) != 0

    cpdef double now(self) except -1:
        return fh_monotonic()

    cpdef bint has_input(self) except -1:
        cdef char byte
        return self._early is not None or recv(self._fd, &byte, 1, MSG_PEEK) > 0

    cpdef double set_deadline(self, double seconds) except -1:
        # Not the turn's time: what ran before may have taken long.
        cdef double now = fh_monotonic()
        if not self._flags & LINGERING:
            self._deadline = now + seconds if seconds > 0 else 0
        return now

    cpdef int pause_reading(self) except -1:
        self._flags |= PAUSED
        return self.mark_dirty()

    cpdef int resume_reading(self) except -1:
        self._flags &= ~PAUSED
        if self._early is not None:
            self._owner.server.call_soon(self._take_early)
        return self.mark_dirty()

    def _take_early(self):
        cdef bytes data = self._early
        self._early = None
        if data is not None:
            self.take(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cpdef int close(self) except -1:
        if self.is_elsewhere():
            self._owner.server.call_soon_threadsafe(self.close)
            return 0
        if not self._flags & CLOSING:
            self._flags |= CLOSING
            # From here on write_timeout guards against a peer that stalls.
            self._deadline = 0
        return self.mark_dirty()

    cpdef int close_lingering(self) except -1:
        self._flags |= WILL_LINGER
        return self.close()

    cpdef int abort(self) except -1:
        if self.is_elsewhere():
            self._owner.server.call_soon_threadsafe(self.abort)
            return 0
        self._flags |= BROKEN | RESET
        return self.mark_dirty()

    cdef int mark_dirty(self) except -1:
        if self._owner._current is not self and not (
            self._flags & (DIRTY | CLOSED)
        ):
            self._flags |= DIRTY
            self._owner._dirty.append(self)
        return 0

    cdef int on_event(self, int mask) except -1:
        if mask != IN:
            self._owner.begin(self)
            if mask & OUT:
                self._flags &= ~BLOCKED
            if mask & (ERR | HUP) and not self._watched & IN:
                if mask & ERR or not self.has_input():
                    self._flags |= BROKEN
                else:
                    # A unix socket tells so though there is more to read.
                    self._owner._poller.unregister(self._fd)
                    self.count_blocked(-1)
                    self._watched = HUNG_UP
            self.end()
        if mask & (IN | ERR | HUP) and self._watched & IN and (
            not self._flags & CLOSED
        ):
            self.receive()
        return 0

    cdef int end(self) except -1:
        """After begin(): send what was written, now or with others."""
        cdef Connections owner = self._owner
        if owner._holding and not self._flags & (BLOCKED | BROKEN | CLOSED):
            if self._queued:
                self.gather()
            if self._queued == 0 and self.has_unsent():
                return owner.hold(self)
        self.settle()
        owner._current = None
        return 0

    cdef int gather(self) except -1:
        """Move a short queue to the shared buffer."""
        cdef Connections owner = self._owner
        cdef Py_ssize_t at, size
        cdef object item
        if (
            not 0 < self._queued <= COPY_MAX or self._held != self._queued
            or self._sent
        ):
            return 0
        for at in range(self._first, len(self._queue)):
            item = self._queue[at]
            size = PyBytes_GET_SIZE(item)
            memcpy(owner._tx + owner._tx_used, PyBytes_AS_STRING(item), size)
            owner._tx_used += size
        return self.consume(self._queued)

    cdef int receive(self) except -1:
        """Read for `Connections.deliver`, or where the protocol wants it."""
        cdef Connections owner = self._owner
        cdef char *data
        cdef ssize_t got
        cdef int failure
        if self._early is not None:
            self._take_early()
        if self._flags & (PAUSED | THROTTLED | EOF_SEEN | BROKEN | CLOSED) or (
            self._flags & (CLOSING | LINGERING) == CLOSING
        ):
            return 0
        if self._protocol.in_place and not self._flags & CLOSING:
            return self.take(NULL, 0)
        data = owner._rx + owner._rx_used
        got = recv(self._fd, data, owner._rx_size, 0)
        if got > 0:
            return owner.add_to_row(self, data, got)
        # begin() may send for others, and for this one, which may end it.
        failure = errno
        owner.begin(self)
        if self._flags & (BROKEN | CLOSED):
            return self.end()
        try:
            self.receive_no_more(got, failure)
        except BaseException:
            self.fail("on_data_received")
        return self.end()

    cdef int take(self, const char *data, Py_ssize_t size) except -1:
        """Hand over what was received; others have run since."""
        self._owner.begin(self)
        if self._flags & (CLOSING | PAUSED | BROKEN | CLOSED):
            self.take_late(data, size)
            return self.end()
        try:
            if size:
                self._protocol.data_received(data, size)
            if self._protocol.in_place:
                self.receive_in_place()
        except BaseException:
            self.fail("on_data_received")
        return self.end()

    cdef int receive_in_place(self) except -1:
        """Where a protocol wants its bytes, they are read to their end."""
        cdef Py_ssize_t budget = TURN_BYTES
        cdef char *data
        cdef Py_ssize_t size
        cdef ssize_t got
        while budget > 0 and not self._flags & (PAUSED | CLOSING | BROKEN):
            data = NULL
            self._protocol.get_buffer(&data, &size)
            if data is NULL:
                return 0
            got = recv(self._fd, data, size, 0)
            if got <= 0:
                return self.receive_no_more(got, errno)
            budget -= got
            self._protocol.data_received(data, got)
        return 0

    cdef int take_late(self, const char *data, Py_ssize_t size) except -1:
        if self._flags & LINGERING:
            self._deadline = min(
                self._owner.now + LINGER_IDLE, self._linger_until
            )
        elif size and not self._flags & (CLOSING | BROKEN | CLOSED):
            self._early = PyBytes_FromStringAndSize(data, size)
        return 0

    cdef int receive_no_more(self, ssize_t got, int failure) except -1:
        """The end, an error, or nothing more for now."""
        if got == 0:
            if self._flags & LINGERING:
                self._flags |= BROKEN
            elif not self._flags & EOF_SEEN:
                self._flags |= EOF_SEEN
                self._protocol.eof_received()
        elif failure != EAGAIN and failure != EINTR:
            self._flags |= BROKEN
        return 0

    cdef bint at_rest(self) noexcept:
        """Nothing to send and nothing but input to wait for."""
        return (
            self._flags & ~BOUND == 0 and self._queued == 0
            and self._watched == IN
        )

    cdef int settle(self) except -1:
        """Bring what the protocol asked for into effect."""
        if self._flags & CLOSED:
            return 0
        self.flush()
        if self._held > HIGH_WATER:
            self.press()
        if self._queued == 0:
            self._flags &= ~BLOCKED
            self._stalled_since = 0
        if self._flags & THROTTLED and self._queued <= LOW_WATER and (
            not self._flags & BROKEN
        ):
            self._flags &= ~THROTTLED
            try:
                self._protocol.resume_writing()
            except BaseException:
                self.fail("on_resume_writing")
            self.keep_unsent()
            if self._queued:
                # mark_dirty() leaves out the one whose turn it is.
                self._flags |= DIRTY
                self._owner._dirty.append(self)
        if self._flags & BROKEN:
            return self.finish()
        if (
            self._flags & CLOSING and self._queued == 0
            and not self._flags & LINGERING
        ):
            # Before the look for input: what comes later costs no answer.
            if shutdown(self._fd, SHUT_WR) < 0 or (
                not self.has_unread_input()
            ):
                return self.finish()
            self.linger()
        return self.watch()

    cdef bint has_unread_input(self) except -1:
        """close(2) with unread input sends RST, which loses the answer."""
        if self._flags & EOF_SEEN:
            return False
        return self._flags & WILL_LINGER or self.has_input()

    cpdef bint enter(self) except -1:
        if self._owner._current is not None or self.is_elsewhere():
            return False
        self._owner.begin(self)
        self._flags |= ENTERED
        return True

    cpdef int leave(self) except -1:
        # Else somebody has left what he did not enter: a hook, its own turn.
        if self._owner._current is not self or not self._flags & ENTERED:
            return 0
        self._flags &= ~ENTERED
        return self.end()

    cpdef int flush_soon(self) except -1:
        cdef Connections owner = self._owner
        if owner._current is not self or self._queued or (
            self._tail is not None
        ):
            return self.flush()
        if owner._tx_used > owner._tx_start and not (
            self._flags & (BROKEN | CLOSED)
        ):
            owner.lend(self)
        return 0

    cpdef int flush(self) except -1:
        cdef Connections owner = self._owner
        if self._flags & WAITING:
            owner.send_held()
        if owner._current is self and self.has_unsent():
            self.flush_shared()
        if self._queued and not self._flags & (BLOCKED | BROKEN):
            self.flush_queue()
        return 0

    cdef int reclaim(self) except -1:
        """Of the shared buffer, what the flusher has left."""
        cdef Connections owner = self._owner
        if owner._lent and owner.take_back():
            self._flags |= BROKEN
        return 0

    cdef int flush_shared(self) except -1:
        cdef Connections owner = self._owner
        cdef fh_piece piece
        self.reclaim()
        self.describe_written(&piece)
        owner._tx_used = owner._tx_start
        self.prepare(&piece)
        fh_piece_send(&piece)
        return self.keep_rest(&piece)

    cdef int describe_written(self, fh_piece *piece) noexcept:
        """What it has written, as the current one, and not sent."""
        cdef Connections owner = self._owner
        # Not returned: a traced build makes an object of what is.
        piece[0] = fh_piece(
            self._fd, FH_SEND_FLAGS, owner._tx + owner._tx_start,
            owner._tx_used - owner._tx_start, NULL, 0, 0, 0, True
        )
        if self._tail is not None:
            piece.tail = PyBytes_AS_STRING(self._tail)
            piece.tail_size = PyBytes_GET_SIZE(self._tail)
        return 0

    cdef int prepare(self, fh_piece *piece) except -1:
        """It is about to be sent."""
        self._flags &= ~WAITING
        piece.flags = self.message_flags()
        if self._flags & (BROKEN | CLOSED) and (
            piece.sent < piece.size + piece.tail_size
        ):
            self._flags |= RESET
            piece.sent = piece.size + piece.tail_size
        return 0

    cdef int keep_rest(self, fh_piece *piece) except -1:
        """What the kernel did not take of it goes to the queue."""
        if piece.sent:
            self._stalled_since = 0
        if piece.failure:
            self._flags |= BROKEN
        elif piece.sent < piece.size + piece.tail_size:
            self._flags |= BLOCKED
            return self.enqueue_rest(piece)
        self._tail = None
        return 0

    cdef int enqueue_rest(self, fh_piece *piece) except -1:
        cdef bytes tail = self._tail
        cdef Py_ssize_t left = piece.size - piece.sent
        self._tail = None
        if left > 0:
            self.enqueue(
                PyBytes_FromStringAndSize(piece.data + piece.sent, left), left
            )
        if tail is not None:
            self.enqueue(tail, piece.tail_size)
            self.consume(max(-left, 0))
        return 0

    cdef bint has_unsent(self) noexcept:
        """Has it, as the current one, written what is not in the queue?"""
        cdef Connections owner = self._owner
        return owner._tx_used > owner._tx_start or self._tail is not None

    cdef int message_flags(self) noexcept:
        """The last bytes leave with FIN, as one packet."""
        return FH_SEND_FLAGS | (MSG_MORE if self._flags & CLOSING else 0)

    cdef int keep_unsent(self) except -1:
        """Move what the current one has written to the queue."""
        cdef Connections owner = self._owner
        cdef fh_piece piece
        if owner._current is not self or not self.has_unsent():
            return 0
        self.reclaim()
        self.describe_written(&piece)
        owner._tx_used = owner._tx_start
        return self.enqueue_rest(&piece)

    cdef int enqueue(self, object item, long long size) except -1:
        if self._flags & WAITING:
            self._owner.send_held()
        if self._flags & CLOSED:
            return 0
        if self._queue is None:
            self._queue = []
        self._queue.append(item)
        self._queued += size
        if type(item) is bytes:
            self._held += size
            self._owner.held += size
            self._largest = max(self._largest, size)
        return 0

    cdef int flush_queue(self) except -1:
        cdef iovec pieces[IOV_COUNT]
        cdef Py_ssize_t budget = TURN_BYTES
        cdef Py_ssize_t wanted, at
        cdef int count
        cdef ssize_t sent
        cdef FileSegment segment
        cdef object item
        cdef bint is_file
        cdef int flags
        self.bound_unsent()
        while self._queued and budget > 0:
            item = self._queue[self._first]
            is_file = type(item) is FileSegment
            count = 0
            if is_file:
                segment = <FileSegment>item
                wanted = min(segment.count - self._sent, budget)
                sent = fh_sendfile(
                    self._fd, segment.fd, segment.offset + self._sent,
                    wanted
                )
                if sent == 0:
                    self._flags |= BROKEN
                    return tell(
                        error_log.error,
                        "%s: a file became shorter while it was sent",
                        self._peername
                    )
            else:
                wanted = 0
                at = self._first
                while at < len(self._queue) and count < IOV_COUNT:
                    item = self._queue[at]
                    if type(item) is not bytes:
                        break
                    pieces[count].iov_base = PyBytes_AS_STRING(item)
                    pieces[count].iov_len = PyBytes_GET_SIZE(item)
                    wanted += pieces[count].iov_len
                    count += 1
                    at += 1
                pieces[0].iov_base = <char *>pieces[0].iov_base + self._sent
                pieces[0].iov_len -= self._sent
                wanted -= self._sent
                # A head leaves with the beginning of its file.
                flags = self.message_flags()
                if type(item) is FileSegment:
                    flags |= MSG_MORE
                sent = fh_send_parts(self._fd, pieces, count, flags)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    self._flags |= BLOCKED
                else:
                    self._flags |= BROKEN
                return 0
            self.consume(sent)
            # Now, not amid the next: a file's owner may write or flush.
            item = segment = None
            budget -= sent + count * MESSAGE_COST
            self._stalled_since = 0
            # Should a file have ended instead, the next turn will see.
            if sent < wanted:
                self._flags |= BLOCKED
                return 0
        if self._queued:
            self._flags |= BLOCKED
        return 0

    cdef int bound_unsent(self) except -1:
        """Keep the kernel's memory small where many do not read."""
        if self._owner._blocked >= MANY_BLOCKED and not self._flags & BOUND:
            self._flags |= BOUND
            fh_bound_unsent(self._fd, LITTLE_UNSENT)
        return 0

    cdef int consume(self, Py_ssize_t sent) except -1:
        cdef Py_ssize_t size
        cdef object item
        self._queued -= sent
        sent += self._sent
        while self._first < len(self._queue):
            item = self._queue[self._first]
            if type(item) is FileSegment:
                size = (<FileSegment>item).count
            else:
                size = PyBytes_GET_SIZE(item)
            if sent < size:
                break
            if type(item) is bytes:
                self._held -= size
                self._owner.held -= size
                if size == self._largest:
                    self._largest = 0
            sent -= size
            self._queue[self._first] = None
            self._first += 1
        self._sent = sent
        if 2 * self._first >= len(self._queue):
            del self._queue[:self._first]
            self._first = 0
        return 0

    cdef int watch(self) except -1:
        """Tell the poller only when what to wait for has changed."""
        cdef int wanted = 0
        cdef Connections owner = self._owner
        if not self._flags & (EOF_SEEN | PAUSED | THROTTLED):
            if not self._flags & CLOSING or self._flags & LINGERING:
                wanted = IN
        if self._flags & BLOCKED:
            wanted |= OUT
            if self._stalled_since == 0:
                self._stalled_since = fh_monotonic()
        if wanted == self._watched or (
            wanted == 0 and self._watched == HUNG_UP
        ):
            return 0
        try:
            if self._watched < 0:
                owner._poller.register(self._fd, wanted)
            else:
                owner._poller.modify(self._fd, wanted)
        except OSError as error:
            self._flags |= BROKEN
            tell(
                error_log.error, "%s: cannot be watched: %s", self._peername,
                error
            )
            return self.finish()
        self.count_blocked(-1)
        self._watched = wanted
        self.count_blocked(1)
        return 0

    cdef int count_blocked(self, int change) except -1:
        if self._watched > 0 and self._watched & OUT:
            self._owner._blocked += change
        return 0

    cdef int linger(self) except -1:
        self._flags |= LINGERING
        self._flags &= ~(PAUSED | THROTTLED)
        self._linger_until = self._owner.now + self._owner.linger_total
        self._deadline = self._owner.now + LINGER_IDLE
        return 0

    cdef int expire(self) except -1:
        cdef double patience = self._owner.write_timeout
        if patience > 0 and (
            0 < self._stalled_since <= self._owner.now - patience
        ):
            self._flags |= BROKEN | RESET
            tell(
                error_log.debug,
                "%s: closed: nothing was read within write_timeout (%g s)",
                self._peername, patience
            )
        elif self._flags & LINGERING:
            self._flags |= BROKEN
        else:
            self._deadline = 0
            try:
                self._protocol.deadline_expired()
            except BaseException:
                self.fail("on_deadline")
        return 0

    cdef int fail(self, str where) except -1:
        """An exception of the user's ends this connection only."""
        self._flags |= BROKEN
        error = sys.exc_info()[1]
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
        return tell(
            error_log.error, "%s: exception in %s", self._peername, where,
            exc_info=error
        )

    cdef int finish(self) except -1:
        """Tell the protocol, once, then close the descriptor."""
        cdef Connections owner = self._owner
        cdef linger_option reset
        if self._flags & WAITING:
            owner.send_held()
        if self._flags & CLOSED:
            return 0
        self._flags |= CLOSED
        if self._queued or owner._current is self and self.has_unsent():
            # What is cut off must not look complete.
            self._flags |= RESET
        if owner._current is self:
            self.reclaim()
            owner._tx_used = owner._tx_start
        self._queue = self._tail = None
        self._queued = 0
        owner.held -= self._held
        self._held = 0
        self.count_blocked(-1)
        if owner.handler_of(self._fd) is self:
            owner.set_handler(self._fd, None)
        if self._watched >= 0 and not self._flags & LOST:
            try:
                owner._poller.unregister(self._fd)
            except OSError as error:
                # The application has closed it: it is not ours any more.
                self._flags |= LOST
                tell(
                    error_log.error, "%s: unregister: %s", self._peername,
                    error
                )
        try:
            if self._protocol is not None:
                self._protocol.connection_lost()
        except BaseException:
            self.fail("on_connection_closed")
        finally:
            self._protocol = None
            if self._flags & RESET and not self._flags & LOST:
                reset.l_onoff = 1
                reset.l_linger = 0
                setsockopt(
                    self._fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)
                )
            if not self._flags & LOST:
                c_close(self._fd)
            self._fd = -1
            owner.count -= 1
            if owner.notify_closed:
                owner.server._on_connection_closed()
        return 0
