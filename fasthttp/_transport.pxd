from cpython.ref cimport PyObject

from fasthttp._protocol cimport BaseProtocol, BaseTransport


cdef extern from "_socket.h":
    ctypedef unsigned int socklen_t
    struct sockaddr_storage:
        unsigned short ss_family


cdef extern from "_flusher.h":
    enum:
        FH_ROW
    struct fh_piece:
        int fd
        int flags
        const char *data
        size_t size
        const char *tail
        size_t tail_size
        size_t sent
        int failure
        bint fresh
    struct fh_flusher:
        fh_piece *pieces

cdef extern from "_ring.h":
    struct fh_ring:
        pass


cdef struct Part:
    PyObject *transport     # owned
    const char *data
    Py_ssize_t size


cdef class Connections:
    cdef readonly object server
    cdef list _handlers         # by descriptor
    cdef readonly Py_ssize_t count
    cdef readonly double now
    cdef double write_timeout
    cdef Py_ssize_t max_queued
    cdef public long long max_queued_total
    cdef readonly long long held    # of all queues, in memory
    cdef public double linger_total
    cdef public bint notify_closed
    cdef object _poller
    cdef list _dirty
    cdef unsigned long _thread
    cdef char *_rx
    cdef Py_ssize_t _rx_size
    cdef Py_ssize_t _rx_used
    cdef Part _row[FH_ROW]      # what stands there, undelivered
    cdef int _row_at, _row_count
    cdef char *_tx
    cdef Py_ssize_t _tx_used
    cdef Py_ssize_t _tx_start   # of what the current transport has written
    cdef Transport _current
    cdef list _waiting          # whose bytes stand before that
    cdef bint _holding          # back the answers of this turn
    cdef Py_ssize_t _blocked    # connections that wait to send
    cdef fh_flusher _flusher
    cdef object _flusher_thread
    cdef fh_ring _ring          # sends what is held
    cdef bint _lent             # what the current has written, to it
    cdef sockaddr_storage _raw_local
    cdef object _local

    cdef object local_address(self, sockaddr_storage *local, socklen_t size)
    cdef object handler_of(self, int fd)
    cdef int add_to_row(
        self, Transport transport, const char *data, Py_ssize_t size
    ) except -1
    cdef int deliver(self) except -1
    cdef int begin(self, Transport transport) except -1
    cdef int lend(self, Transport transport) except -1
    cdef int take_back(self) except -1
    cdef int hold(self, Transport transport) except -1
    cdef int send_held(self) except -1
    cdef int adopt(
        self, int fd, sockaddr_storage *peer, socklen_t size, object factory
    ) except -1
    cdef int shed(self) except -1
    cdef int drain_one(self, Transport transport) except -1


cdef class Transport(BaseTransport):
    cdef Connections _owner
    cdef BaseProtocol _protocol
    cdef int _fd
    cdef int _watched
    cdef int _flags
    cdef double _deadline
    cdef double _stalled_since
    cdef double _linger_until
    cdef object _peername
    cdef bytes _early           # received before it was paused
    # Written behind what stands in the shared buffer; is not copied.
    cdef bytes _tail
    cdef list _queue
    cdef Py_ssize_t _first
    cdef long long _sent
    cdef Py_ssize_t _queued     # with what is in files
    cdef Py_ssize_t _held       # of it in memory
    cdef Py_ssize_t _largest    # block of it

    cdef int on_event(self, int mask) except -1
    cdef int receive(self) except -1
    cdef int receive_in_place(self) except -1
    cdef int take(self, const char *data, Py_ssize_t size) except -1
    cdef int take_late(self, const char *data, Py_ssize_t size) except -1
    cdef int receive_no_more(self, ssize_t got, int failure) except -1
    cdef bint at_rest(self) noexcept
    cdef int settle(self) except -1
    cdef int press(self) except -1
    cdef int tell_full(self) except -1
    cdef int reclaim(self) except -1
    cdef int flush_shared(self) except -1
    cdef int describe_written(self, fh_piece *piece) noexcept
    cdef int prepare(self, fh_piece *piece) except -1
    cdef int keep_rest(self, fh_piece *piece) except -1
    cdef int enqueue_rest(self, fh_piece *piece) except -1
    cdef bint has_unsent(self) noexcept
    cdef int end(self) except -1
    cdef int gather(self) except -1
    cdef int message_flags(self) noexcept
    cdef int flush_queue(self) except -1
    cdef int consume(self, Py_ssize_t sent) except -1
    cdef int keep_unsent(self) except -1
    cdef int enqueue(self, object item, long long size) except -1
    cdef bint has_unread_input(self) except -1
    cdef int mark_dirty(self) except -1
    cdef int watch(self) except -1
    cdef int count_blocked(self, int change) except -1
    cdef int bound_unsent(self) except -1
    cdef int linger(self) except -1
    cdef int finish(self) except -1
    cdef int fail(self, str where) except -1
    cdef int expire(self) except -1
