"""Where bodies are kept: in memory up to limits, then in files."""
import logging
from io import BytesIO

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
)
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, PyObject
from libc.string cimport memcpy

from fasthttp.errors import PeerError

cdef extern from *:
    # Pool threads give back what the loop has taken.
    long long add "__atomic_add_fetch"(long long *, long long, int) noexcept
    int RELAXED "__ATOMIC_RELAXED"

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)
    int _PyBytes_Resize(PyObject **, Py_ssize_t) except -1

cdef object error_log = logging.getLogger("fasthttp.error")


@cython.final
cdef class Store:
    """What all request bodies, and answers that wait on the disk, take."""

    def __cinit__(self, config):
        self.body_memory = config.body_memory
        self.body_memory_total = config.body_memory_total
        self.limit_spooled = config.limit_spooled

    @property
    def used(self):
        return self.memory, self.spooled

    cdef bint spool(self, Py_ssize_t size) noexcept:
        """Take `size` bytes of the disk; True if there is room for them."""
        return add(&self.spooled, size, RELAXED) <= self.limit_spooled

    cdef void give_back(self, long long memory, long long spooled) noexcept:
        if memory:
            add(&self.memory, -memory, RELAXED)
        if spooled:
            add(&self.spooled, -spooled, RELAXED)

    def __dealloc__(self):
        cdef int order
        for order in range(BLOCK_ORDERS):
            Py_XDECREF(self._spare[order])

    cdef bytes new_block(self, Py_ssize_t size):
        """Memory for a body; if possible, some that served before.

        glibc gives large blocks back to the system. Measured for a POST of
        1 MB: 229 page faults each, 0 with a block that is kept.
        """
        cdef PyObject *kept = self._spare[block_order(size)]
        if kept is NULL:
            return PyBytes_FromStringAndSize(NULL, size)
        self._spare[block_order(size)] = NULL
        _PyBytes_Resize(&kept, size)
        block = <bytes>kept
        Py_DECREF(block)
        return block

    cdef int keep_block(self, RequestBody body) except -1:
        """Keep one block of each order, unless somebody still holds it."""
        cdef PyObject *block = <PyObject *>body.block
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body.block)
        cdef int order = block_order(size)
        if order and self._spare[order] is NULL and Py_REFCNT(block) == 1:
            Py_INCREF(body.block)
            body.block = None
            # This also makes it forget its hash.
            _PyBytes_Resize(&block, size - 1)
            self._spare[order] = block
        return 0


cdef int block_order(Py_ssize_t size) noexcept:
    """1 above 32 KiB, one more for each doubling; 0: not worth keeping."""
    cdef int order = 0
    while size > 32768:
        size = (size + 1) >> 1
        order += 1
    return order if order < BLOCK_ORDERS else 0


# It holds nothing that could hold it: __dealloc__ finds its store.
@cython.no_gc
@cython.final
cdef class RequestBody:
    """A body being collected: in memory up to limits, then in a file."""

    def __cinit__(self, Store store):
        self._store = store

    def __dealloc__(self):
        self.give_back()

    cdef int expect(self, long long length) except -1:
        if 0 < length <= self._store.body_memory:
            self.block = self._store.new_block(length)
        else:
            self._gathered = bytearray()
        return 0

    cdef int add(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef Store store = self._store
        cdef char *to
        if self.block is not None:
            to = PyBytes_AS_STRING(self.block) + self.size
            if <const char *>data != to:
                memcpy(to, data, size)
        elif self._file is None:
            self._gathered += <bytes>PyBytes_FromStringAndSize(
                <const char *>data, size
            )
        self.size += size
        if self._file is not None:
            return self.spool(
                PyBytes_FromStringAndSize(<const char *>data, size)
            )
        self._memory += size
        if (
            add(&store.memory, size, RELAXED) > store.body_memory_total
            or self.size > store.body_memory
        ):
            return self.use_file()
        return 0

    cdef int use_file(self) except -1:
        cdef bytes so_far
        # Rare, and slow to import.
        import tempfile
        if self.block is not None:
            so_far = self.block[:self.size]
        else:
            so_far = bytes(self._gathered)
        self._file = tempfile.TemporaryFile()
        self.block = self._gathered = None
        self.give_back()
        return self.spool(so_far)

    cdef int spool(self, bytes data) except -1:
        self._spooled += len(data)
        if not self._store.spool(len(data)):
            raise PeerError(
                503, "there is no room to store this request body: the sum"
                f" of all reached limit_spooled ({self._store.limit_spooled})"
            )
        self._file.write(data)
        return 0

    cdef void give_back(self) noexcept:
        self._store.give_back(self._memory, self._spooled)
        self._memory = self._spooled = 0

    cdef int complete(self) except -1:
        """All bytes are there; OSError if they cannot be stored."""
        if self._file is not None:
            self._file.flush()
        return 0

    cdef int close(self) except -1:
        self.give_back()
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                error_log.debug("a request body's file: %s", error)
        return 0

    cdef int release(self) except -1:
        """Nobody will ask this object for its content any more."""
        if self.block is not None:
            self._store.keep_block(self)
        return 0

    cdef bytes content(self):
        if self.block is not None:
            return self.block
        if self._file is not None:
            self._file.seek(0)
            return self._file.read()
        return bytes(self._gathered)

    cdef object stream(self):
        if self._file is not None:
            self._file.seek(0)
            return self._file
        return BytesIO(self.content())
