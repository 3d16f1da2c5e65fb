from cpython.ref cimport PyObject

cdef enum:
    BLOCK_ORDERS = 6


cdef class RequestBody


cdef class Store:
    cdef Py_ssize_t body_memory
    cdef long long body_memory_total
    cdef long long limit_spooled
    cdef long long memory
    cdef long long spooled
    cdef PyObject *_spare[BLOCK_ORDERS]

    cdef bytes new_block(self, Py_ssize_t size)
    cdef int keep_block(self, RequestBody body) except -1
    cdef bint spool(self, Py_ssize_t size) noexcept
    cdef void give_back(self, long long memory, long long spooled) noexcept


cdef class RequestBody:
    cdef Store _store
    cdef bytes block            # of the size Content-Length told
    cdef bytearray _gathered
    cdef long long size
    cdef object _file
    cdef long long _memory      # taken of the store
    cdef long long _spooled

    cdef int use_file(self) except -1
    cdef int spool(self, bytes data) except -1
    cdef void give_back(self) noexcept
    cdef int expect(self, long long length) except -1
    cdef int add(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int complete(self) except -1
    cdef int close(self) except -1
    cdef int release(self) except -1
    cdef bytes content(self)
    cdef object stream(self)
