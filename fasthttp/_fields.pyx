"""Header fields as objects: known names, and values that come again."""
cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject

cdef extern from "_scan.h":
    bint fh_add_name(fh_names *, int, const char *) noexcept

# The order is that of `Known`, which names the first and the credentials.
KNOWN_NAMES = (
    "host", "content-length", "transfer-encoding", "connection", "expect",
    "content-type", "user-agent", "referer",
    "accept", "accept-charset", "accept-encoding", "accept-language",
    "access-control-request-headers", "access-control-request-method",
    "cache-control", "date", "dnt", "forwarded",
    "from", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "keep-alive", "max-forwards", "origin", "pragma",
    "priority", "proxy-connection", "range",
    "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest",
    "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user", "sec-gpc",
    "sec-websocket-extensions", "sec-websocket-key",
    "sec-websocket-protocol", "sec-websocket-version", "te", "traceparent",
    "tracestate", "trailer", "upgrade", "upgrade-insecure-requests", "via",
    "warning", "x-api-key", "x-csrf-token", "x-csrftoken", "x-forwarded-for",
    "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix",
    "x-forwarded-proto", "x-http-method-override", "x-real-ip",
    "x-request-id", "x-requested-with",
    "authorization", "cookie", "proxy-authorization",
)

cdef tuple known_names = KNOWN_NAMES
cdef PyObject *known_objects[128]       # owned by known_names
cdef fh_names names


cdef int fill_names() except -1:
    cdef int known
    for known, name in enumerate(known_names):
        known_objects[known] = <PyObject *>name
        if not fh_add_name(&names, known, name.encode()):
            raise SystemError(f"{name} needs another hash of names")
    return 0


fill_names()


@cython.final
cdef class FieldMemo:
    """Fields that come again and again, as objects made once; for one loop.

    A value has one place, and takes it when it is seen for the second time
    in a row there: what never repeats costs a hash and displaces nothing.
    """

    def __cinit__(self):
        self.names = &names
        self.places = <Place *>PyMem_Calloc(MEMO_PLACES, sizeof(Place))
        if self.places is NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int index
        if self.places is not NULL:
            for index in range(MEMO_PLACES):
                Py_XDECREF(self.places[index].pair)
            PyMem_Free(self.places)

    cdef object new_pair(
        self, uint64_t tag, const Field *field, const unsigned char *base
    ):
        value = own_value(field, base)
        if field.known == UNKNOWN:
            name = latin1(base + field.name, field.name_size, False)
            return (name.lower(), value)
        pair = (<object>known_objects[field.known], value)
        if self.comes_again(tag):
            self.keep(tag, pair)
        return pair

    cdef object new_value(
        self, uint64_t tag, const Field *field, const unsigned char *base
    ):
        value = own_value(field, base)
        if self.comes_again(tag):
            self.keep(tag, (<object>known_objects[field.known], value))
        return value

    cdef bint comes_again(self, uint64_t tag) noexcept:
        cdef Place *place = &self.places[tag >> 56]
        cdef bint again = place.seen == tag
        if tag == 0:
            return False
        place.seen = tag
        return again

    cdef void keep(self, uint64_t tag, tuple pair) noexcept:
        cdef Place *place = &self.places[tag >> 56]
        cdef PyObject *old = place.pair
        Py_INCREF(pair)
        place.pair = <PyObject *>pair
        place.value = <PyObject *>pair[1]
        place.text = PyUnicode_DATA(pair[1])
        place.tag = tag
        Py_XDECREF(old)
