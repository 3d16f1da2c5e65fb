cdef class BaseTransport:
    cpdef object getpeername(self)
    cpdef object getsockname(self)
    cpdef int write(self, data) except -1
    cdef int write_raw(self, const char *data, Py_ssize_t size) except -1
    cpdef int write_file(
        self, object owner, int fd, long long offset, long long count
    ) except -1
    cpdef int flush(self) except -1
    cpdef int flush_soon(self) except -1
    cpdef bint enter(self) except -1
    cpdef int leave(self) except -1
    cpdef Py_ssize_t queued(self) except -1
    cpdef bint full(self) except -1
    cdef bint is_elsewhere(self) noexcept
    cdef bint is_broken(self) noexcept
    cpdef double now(self) except -1
    cpdef bint has_input(self) except -1
    cpdef double set_deadline(self, double seconds) except -1
    cpdef int pause_reading(self) except -1
    cpdef int resume_reading(self) except -1
    cpdef int close(self) except -1
    cpdef int close_lingering(self) except -1
    cpdef int abort(self) except -1


cdef class BaseProtocol:
    cdef readonly object server
    cdef readonly object trans
    cdef readonly object _mqueue
    cdef bint in_place          # get_buffer() tells where bytes are wanted
    cdef bint reads_on          # after drain()

    cdef int connection_made(self) except -1
    cdef int get_buffer(self, char **data, Py_ssize_t *size) except -1
    cdef int data_received(
        self, const char *data, Py_ssize_t size
    ) except -1
    cdef int eof_received(self) except -1
    cdef int pause_writing(self) except -1
    cdef int resume_writing(self) except -1
    cdef int deadline_expired(self) except -1
    cdef int drain(self) except -1
    cdef int connection_lost(self) except -1
