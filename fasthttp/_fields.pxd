from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t, Py_UCS4)
    void *PyUnicode_DATA(object)

cdef extern from "_scan.h":
    ctypedef struct fh_names:
        pass
    ctypedef struct Field "fh_field":
        uint32_t name
        uint32_t name_size
        uint32_t value
        uint32_t value_size
        int known
        int high            # the line holds bytes above 0x7f
    uint64_t fh_tag(const unsigned char *, Py_ssize_t, int) noexcept

# Names the parser itself acts on come first; `KNOWN_NAMES` has them all.
cdef enum Known:
    UNKNOWN = -1
    HOST = 0
    CONTENT_LENGTH = 1
    TRANSFER_ENCODING = 2
    CONNECTION = 3
    EXPECT = 4
    ACTED_ON = 5
    USER_AGENT = 6
    REFERER = 7
    # From here on what a field holds is not kept beyond the request.
    CREDENTIALS = 63

cdef enum:
    MEMO_PLACES = 256
    MEMO_MAX = 256      # bytes of a value
    MEMO_HOST = 64

cdef struct Place:
    uint64_t tag        # of the pair, or 0
    uint64_t seen       # of the last field that was not found
    PyObject *pair      # owned: (name, value)
    PyObject *value
    const void *text    # of the value


cdef class FieldMemo:
    cdef const fh_names *names
    cdef Place *places
    cdef unsigned char host[MEMO_HOST]  # the last one found to be valid
    cdef Py_ssize_t host_size

    cdef object new_pair(
        self, uint64_t tag, const Field *field, const unsigned char *base
    )
    cdef object new_value(
        self, uint64_t tag, const Field *field, const unsigned char *base
    )
    cdef bint comes_again(self, uint64_t tag) noexcept
    cdef void keep(self, uint64_t tag, tuple pair) noexcept


# The caller of these holds the memo's critical section.


cdef inline object pair_of(
    FieldMemo memo, const Field *field, const unsigned char *base
):
    """(name in lower case, value)."""
    cdef uint64_t tag
    cdef const Place *place = find(memo, field, base, &tag)
    if place is NULL:
        return memo.new_pair(tag, field, base)
    return <object>place.pair


cdef inline object value_of(
    FieldMemo memo, const Field *field, const unsigned char *base
):
    cdef uint64_t tag
    cdef const Place *place = find(memo, field, base, &tag)
    if place is NULL:
        return memo.new_value(tag, field, base)
    return <object>place.value


cdef inline const Place *find(
    FieldMemo memo, const Field *field, const unsigned char *base,
    uint64_t *tag
) noexcept:
    """Where an equal field is kept, or NULL; a tag of 0 is never kept."""
    cdef const unsigned char *text = base + field.value
    cdef const Place *place
    tag[0] = 0
    if (
        field.value_size > MEMO_MAX or field.high
        or <unsigned>field.known >= CREDENTIALS
    ):
        return NULL
    tag[0] = fh_tag(text, field.value_size, field.known)
    place = &memo.places[tag[0] >> 56]
    if place.tag != tag[0] or memcmp(place.text, text, field.value_size) != 0:
        return NULL
    return place


cdef inline object own_value(const Field *field, const unsigned char *base):
    """The value as a new str; see `value_of` for one made before."""
    return latin1(base + field.value, field.value_size, field.high)


cdef inline object latin1(
    const unsigned char *text, Py_ssize_t size, bint high
):
    if high:
        return PyUnicode_DecodeLatin1(<const char *>text, size, NULL)
    if size == 0:
        return ""
    made = PyUnicode_New(size, 127)
    memcpy(PyUnicode_DATA(made), text, size)
    return made
