"""The seam between sockets and protocols.

A transport calls the protocol's C methods; those of `BaseProtocol` call the
Python hooks, a compiled protocol overrides them and sees no Python object.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize


cdef class BaseTransport:
    cpdef object getpeername(self):
        return ""

    cpdef object getsockname(self):
        return ""

    cpdef int write(self, data) except -1:
        raise NotImplementedError

    cdef int write_raw(self, const char *data, Py_ssize_t size) except -1:
        return self.write(PyBytes_FromStringAndSize(data, size))

    cpdef int write_file(
        self, object owner, int fd, long long offset, long long count
    ) except -1:
        raise NotImplementedError

    cpdef int flush(self) except -1:
        return 0

    cpdef int flush_soon(self) except -1:
        return self.flush()

    cpdef bint enter(self) except -1:
        return False

    cpdef int leave(self) except -1:
        return 0

    cpdef Py_ssize_t queued(self) except -1:
        return 0

    cpdef bint full(self) except -1:
        return False

    cdef bint is_elsewhere(self) noexcept:
        return False

    cdef bint is_broken(self) noexcept:
        return False

    cpdef double now(self) except -1:
        return 0.0

    cpdef bint has_input(self) except -1:
        return False

    cpdef double set_deadline(self, double seconds) except -1:
        return 0.0

    cpdef int pause_reading(self) except -1:
        return 0

    cpdef int resume_reading(self) except -1:
        return 0

    cpdef int close(self) except -1:
        raise NotImplementedError

    cpdef int close_lingering(self) except -1:
        return self.close()

    cpdef int abort(self) except -1:
        return self.close()


cdef class BaseProtocol:
    """One connection as a user of the server sees it.

    Calls come as `on_new_connection`, `on_data_received` any number of
    times, `on_connection_closed` exactly once, all from the loop's thread.
    An exception in a hook is logged and ends this connection only.
    """

    def __init__(self, server, sk_client, mqueue):
        cls = type(self)
        for hook in (
            "on_new_connection", "on_data_received", "on_connection_closed"
        ):
            if getattr(cls, hook) is getattr(BaseProtocol, hook):
                raise TypeError(
                    f"Can't instantiate abstract class {cls.__name__}: "
                    f"{hook} is not implemented"
                )
        self.server = server
        self.trans = sk_client
        self._mqueue = mqueue

    def on_new_connection(self, address):
        raise NotImplementedError

    def on_data_received(self, data):
        raise NotImplementedError

    def on_connection_closed(self):
        raise NotImplementedError

    def on_pause_writing(self):
        pass

    def on_resume_writing(self):
        pass

    def on_deadline(self):
        self.trans.abort()

    def on_shutdown(self):
        self.trans.close()

    def send(self, data):
        if isinstance(data, str):
            data = data.encode()
        # What a transport's put_nowait() does: 200 instructions of 2,300.
        if isinstance(self._mqueue, BaseTransport):
            (<BaseTransport>self._mqueue).write(data)
        else:
            self._mqueue.put_nowait(data)

    def close_socket_connection(self):
        self.trans.close()

    cdef int connection_made(self) except -1:
        self.on_new_connection(self.trans.getpeername())
        return 0

    cdef int get_buffer(self, char **data, Py_ssize_t *size) except -1:
        return 0

    cdef int data_received(
        self, const char *data, Py_ssize_t size
    ) except -1:
        self.on_data_received(PyBytes_FromStringAndSize(data, size))
        return 0

    cdef int eof_received(self) except -1:
        self.trans.close()
        return 0

    cdef int pause_writing(self) except -1:
        self.on_pause_writing()
        return 0

    cdef int resume_writing(self) except -1:
        self.on_resume_writing()
        return 0

    cdef int deadline_expired(self) except -1:
        self.on_deadline()
        return 0

    cdef int drain(self) except -1:
        self.on_shutdown()
        return 0

    cdef int connection_lost(self) except -1:
        self.on_connection_closed()
        return 0
