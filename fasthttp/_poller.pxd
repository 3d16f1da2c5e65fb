from cpython.pythread cimport PyThread_type_lock


cdef extern from "_socket.h":
    union epoll_data:
        int fd
    ctypedef struct fh_event:
        unsigned int events
        epoll_data data

# The masks of poll(2), which epoll(7) shares.
cdef enum:
    IN = 0x1
    OUT = 0x4
    ERR = 0x8
    HUP = 0x10


cdef class Events:
    cdef fh_event *_ready
    cdef Py_ssize_t _room
    cdef Py_ssize_t _count

    cdef int add(self, int fd, unsigned int mask) noexcept


cdef class Gate:
    cdef PyThread_type_lock _lock

    cpdef int wait(self) except -1


cdef class EpollPoller:
    cdef int _fd
    cdef list _gates            # to open in the next poll

    cdef int _control(self, int what, int fd, unsigned int mask) except -1
