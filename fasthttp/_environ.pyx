"""The environ of a WSGI request (PEP 3333, RFC 3875) from its parsed head."""
import sys

cimport cython
from cpython.dict cimport PyDict_Copy, PyDict_GetItem, PyDict_SetItem
from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy

from fasthttp._fields cimport (
    CREDENTIALS, Field, PyUnicode_DATA, PyUnicode_New, value_of
)
from fasthttp._parser cimport HEAD, Head, RequestParser, text_of

from fasthttp import _fields, _parser

cdef extern from "Python.h":
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    # Of a pointer: as an object it would be held once more while counted.
    Py_ssize_t Py_REFCNT(PyObject *)

cdef extern from *:
    """
    /* A number that is another one as soon as `dict`, watched, has changed. */
    static inline uint64_t fh_changes(PyObject *dict);

    #if PY_VERSION_HEX < 0x030C0000
    #define fh_watch_begin() ((void)0)
    #define fh_watch(dict) ((void)0)
    #define fh_unwatch(dict) ((void)0)

    /* PEP 509: each change of any dict gives it a number of its own. */
    static inline uint64_t fh_changes(PyObject *dict)
    {
        return ((PyDictObject *)dict)->ma_version_tag;
    }
    #else
    static uint64_t fh_counted;
    static int fh_watcher;

    static int fh_count(PyDict_WatchEvent event, PyObject *Py_UNUSED(dict),
                        PyObject *Py_UNUSED(key), PyObject *Py_UNUSED(value))
    {
        if (event != PyDict_EVENT_DEALLOCATED)
            __atomic_fetch_add(&fh_counted, 1, __ATOMIC_RELAXED);
        return 0;
    }

    static void fh_watch_begin(void)
    {
        fh_watcher = PyDict_AddWatcher(fh_count);
        /* There are eight; if others took them, all counts as changed. */
        if (fh_watcher < 0)
            PyErr_Clear();
    }

    static inline void fh_watch(PyObject *dict)
    {
        if (fh_watcher >= 0)
            PyDict_Watch(fh_watcher, dict);
    }

    static inline void fh_unwatch(PyObject *dict)
    {
        if (fh_watcher >= 0)
            PyDict_Unwatch(fh_watcher, dict);
    }

    static inline uint64_t fh_changes(PyObject *dict)
    {
        if (fh_watcher < 0)
            fh_count(PyDict_EVENT_MODIFIED, dict, NULL, NULL);
        return __atomic_load_n(&fh_counted, __ATOMIC_RELAXED);
    }
    #endif
    """
    void fh_watch_begin() noexcept
    void fh_watch(dict) noexcept
    void fh_unwatch(dict) noexcept
    uint64_t fh_changes(dict) noexcept

fh_watch_begin()


# The golden ratio of 2**64 (Knuth's multiplicative hash).
cdef uint64_t MIX = 0x9E3779B97F4A7C15

# Of the request line.
cdef enum:
    METHOD = 1
    TARGET = 2
    QUERY = 4
    PROTOCOL = 8


cdef str environ_key(str name):
    if name in ("content-type", "content-length"):
        return sys.intern(name.upper().replace("-", "_"))
    return sys.intern("HTTP_" + name.upper().replace("-", "_"))


cdef tuple KEYS = tuple([environ_key(name) for name in _fields.KNOWN_NAMES])
cdef PyObject *keys[128]            # owned by KEYS
cdef int _index
for _index in range(len(KEYS)):
    keys[_index] = <PyObject *>KEYS[_index]
cdef str K_METHOD = sys.intern("REQUEST_METHOD")
cdef str K_PATH = sys.intern("PATH_INFO")
cdef str K_QUERY = sys.intern("QUERY_STRING")
cdef str K_RAW_URI = sys.intern("RAW_URI")
cdef str K_REQUEST_URI = sys.intern("REQUEST_URI")
cdef str K_PROTOCOL = sys.intern("SERVER_PROTOCOL")
cdef str K_REMOTE_ADDR = sys.intern("REMOTE_ADDR")
cdef str K_REMOTE_PORT = sys.intern("REMOTE_PORT")
cdef str K_INPUT = sys.intern("wsgi.input")
cdef str K_HOST = sys.intern("HTTP_HOST")
cdef str K_COOKIE = sys.intern("HTTP_COOKIE")


def environ_base():
    # With 22 entries a copy has room for 20 fields before it grows.
    return {
        K_METHOD: "GET",
        "SCRIPT_NAME": "",
        K_PATH: "/",
        K_QUERY: "",
        K_RAW_URI: "/",
        K_REQUEST_URI: "/",
        K_PROTOCOL: "HTTP/1.1",
        "SERVER_NAME": "",
        "SERVER_PORT": "",
        "SERVER_SOFTWARE": "fasthttp",
        "GATEWAY_INTERFACE": "CGI/1.1",
        K_REMOTE_ADDR: "",
        K_REMOTE_PORT: "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        K_INPUT: None,
        "wsgi.input_terminated": True,
        "wsgi.errors": None,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": None,
    }


# What becomes of a field.
cdef enum:
    PLAIN = 0       # the shape's environ has it already
    SECRET = 1      # not kept beyond the request
    REPEATED = 2    # joined to the one before
    UNKNOWN = 3


@cython.final
cdef class Shape:
    """Requests with one row of known fields, and environs for them."""

    cdef void describe(self, const Head *head) noexcept:
        cdef uint64_t seen[2]
        cdef int index
        seen[0] = seen[1] = 0
        self.lendable = True
        self.count = self.plain = head.count
        for index in range(head.count):
            self.known[index] = <signed char>head.fields[index].known
            self.kinds[index] = kind_of(seen, head.fields[index].known)
            if self.kinds[index] != PLAIN:
                self.plain = min(self.plain, index)
            if self.kinds[index] > SECRET:
                self.lendable = False

    cdef bint fits(self, const Head *head) noexcept:
        cdef int index
        if head.count != self.count:
            return False
        for index in range(head.count):
            if head.fields[index].known != self.known[index]:
                return False
        return True

    cdef int keep(self, Loan loan) except -1:
        loan.next = self.loans
        self.loans = loan
        self.kept += 1
        return 0

    cdef dict lend(self, Loan loan):
        cdef dict environ = loan.environ
        self.loans = loan.next
        self.kept -= 1
        loan.next = None
        loan.environ = None
        loan.shape = self
        return environ

    cdef int forget_secrets(self, dict environ) except -1:
        cdef int index
        for index in range(self.plain, self.count):
            if self.kinds[index] == SECRET:
                PyDict_SetItem(environ, <object>keys[self.known[index]], "")
        return 0


@cython.final
@cython.no_gc
cdef class Loan:
    """An environ that serves again if it comes back as it was.

    It has the plain fields of its shape, with the values of its last request.
    What is not plain goes into the application's only.
    """

    def __cinit__(self, dict environ not None):
        self.environ = environ

    cdef int set_remote(self, str addr, str port) except -1:
        if addr is not self.remote_addr:
            PyDict_SetItem(self.environ, K_REMOTE_ADDR, addr)
            self.remote_addr = addr
        if port is not self.remote_port:
            PyDict_SetItem(self.environ, K_REMOTE_PORT, port)
            self.remote_port = port
        return 0

    cdef int set_values(self, RequestParser parser, Shape shape) except -1:
        """The plain fields; most have the value that the last one had."""
        cdef const unsigned char *base = parser.at(0)
        cdef PyObject *last
        cdef Field *field
        cdef int index
        for index in range(shape.count):
            if shape.kinds[index] != PLAIN:
                continue
            field = &parser.head.fields[index]
            last = self.values[index]
            if last is not NULL and is_text(
                <object>last, base + field.value, field.value_size
            ):
                continue
            value = value_of(parser.memo, field, base)
            if last is not <PyObject *>value:
                PyDict_SetItem(
                    self.environ, <object>keys[field.known], value
                )
                self.values[index] = <PyObject *>value
        return 0

    cdef int set_input(self, dict environ, object stream) except -1:
        # Not watched meanwhile: it would count as a change of all others.
        fh_unwatch(environ)
        PyDict_SetItem(environ, K_INPUT, stream)
        fh_watch(environ)
        self.has_input = True
        self.changes = fh_changes(environ)
        return 0

    cdef bint is_over(self, dict environ) noexcept:
        """Is it as it was, and nobody's but the caller's?"""
        return Py_REFCNT(<PyObject *>environ) == 1 and (
            fh_changes(environ) == self.changes
        )

    cdef int come_back(self, dict environ) except -1:
        """The application is done with it; None: it is its own now.

        Who leaves environs as they were is lent them again. Measured, a small
        request: 1,200 instructions less of 10,400.
        """
        cdef Shape shape = self.shape
        self.shape = None
        if environ is None:
            shape.copies = COPIES
        elif shape.kept < LOANS_MAX:
            fh_unwatch(environ)
            shape.forget_secrets(environ)
            if self.has_input:
                PyDict_SetItem(environ, K_INPUT, shape.no_input)
                self.has_input = False
            self.environ = environ
            shape.keep(self)
        return 0


@cython.final
cdef class EnvironTemplate:
    def __init__(self, base, address):
        name, port = "localhost", 80
        if type(address) is tuple:
            name, port = address[:2]
            if ":" in name:
                # RFC 3875 section 4.1.14: as the host of a URL.
                name = f"[{name}]"
        whole = base | {"SERVER_NAME": name, "SERVER_PORT": str(port)}
        # Entry by entry: a dict that was presized takes 24 bytes for each
        # instead of 16, its copies leave malloc's fast bins (measured: 300
        # instructions a request).
        self._base = self._last = Shape()
        self._base.keep(Loan({key: value for key, value in whole.items()}))
        self._shapes = [self._base] * SHAPES
        self._base.no_input = whole[K_INPUT]

    def environ_of(self, RequestParser parser not None, bytes head not None):
        parser.feed(head, len(head))
        if parser.next_event() != HEAD:
            parser.keep()
            raise ValueError("not the whole head of a request")
        environ = self.make(parser, "", "")
        if self.loan is not None:
            self.loan.come_back(None)
            self.loan = None
        while parser.next_event():
            pass
        parser.keep()
        return environ

    cdef dict make(
        self, RequestParser parser, str remote_addr, str remote_port
    ):
        """A dict with what the request in `parser` says.

        Measured, a browser's head: 7,900 instructions, where most values
        are as they were 6,700, and 10,500 if nothing is known of its row.
        """
        cdef Head *head = &parser.head
        cdef Shape shape = self.shape_of(head)
        cdef Loan source = shape.loans
        cdef Loan loan = None
        cdef int parts = parts_of(parser)
        cdef dict environ
        if source is None:
            source = Loan(PyDict_Copy(self._base.loans.environ))
            shape.keep(source)
        source.set_remote(remote_addr, remote_port)
        with cython.critical_section(parser.memo):
            source.set_values(parser, shape)
            if not shape.lendable or head.authority.size:
                environ = PyDict_Copy(source.environ)
            elif shape.copies:
                shape.copies -= 1
                environ = PyDict_Copy(source.environ)
            else:
                loan = source
                environ = shape.lend(loan)
            set_parts(environ, parser, parts | source.parts)
            if shape.plain < head.count:
                add_others(environ, parser, shape)
        if loan is not None:
            fh_watch(environ)
            loan.parts = parts
            loan.changes = fh_changes(environ)
        elif head.authority.size:
            # RFC 9112 section 3.2.2: it replaces the Host field.
            PyDict_SetItem(environ, K_HOST, text_of(parser, head.authority))
        self.loan = loan
        return environ

    cdef Shape shape_of(self, const Head *head):
        """The empty one for a row that has not come twice in its place."""
        cdef uint64_t row = 0
        cdef Shape shape = self._last
        cdef int index
        if shape.fits(head):
            return shape
        for index in range(head.count):
            row = (row + head.fields[index].known + 2) * MIX
        index = row >> 60
        shape = self._shapes[index]
        if shape.fits(head):
            self._last = shape
            return shape
        if self._seen[index] != row or head.count > FIELDS_MAX:
            self._seen[index] = row
            return self._base
        shape = Shape()
        shape.no_input = self._base.no_input
        shape.describe(head)
        self._shapes[index] = shape
        return shape


cdef inline bint is_text(
    object value, const unsigned char *text, Py_ssize_t size
) noexcept:
    """Has a str of bytes above 0x7f, too, one byte for each."""
    return PyUnicode_GET_LENGTH(value) == size and (
        memcmp(PyUnicode_DATA(value), text, size) == 0
    )


cdef inline char kind_of(uint64_t *seen, int known) noexcept:
    cdef uint64_t bit
    if known < 0:
        return UNKNOWN
    bit = <uint64_t>1 << (known & 63)
    if seen[known >> 6] & bit:
        return REPEATED
    seen[known >> 6] |= bit
    return SECRET if known >= CREDENTIALS else PLAIN


cdef int add_others(
    dict environ, RequestParser parser, Shape shape
) except -1:
    """The fields that the shape's environ has not; of the empty one, all."""
    cdef const unsigned char *base = parser.at(0)
    cdef Field *field
    cdef int index
    cdef uint64_t seen[2]
    cdef char kind
    cdef object key
    seen[0] = seen[1] = 0
    for index in range(shape.plain, parser.head.count):
        field = &parser.head.fields[index]
        if index >= shape.count:
            kind = kind_of(seen, field.known)
        else:
            kind = shape.kinds[index]
            if kind == PLAIN:
                continue
        value = value_of(parser.memo, field, base)
        if kind == UNKNOWN:
            key = unknown_key(base + field.name, field.name_size)
            if key is None:
                continue
            if PyDict_GetItem(environ, key) is not NULL:
                kind = REPEATED
        else:
            key = <object>keys[field.known]
        if kind == REPEATED:
            # RFC 9110 section 5.3, RFC 6265 section 5.4
            glue = "; " if key is K_COOKIE else ", "
            value = environ[key] + glue + value
        PyDict_SetItem(environ, key, value)
    return 0


cdef int parts_of(RequestParser parser) noexcept:
    """In what the request line differs from GET / HTTP/1.1."""
    cdef Head *head = &parser.head
    cdef int parts = 0
    if head.method.size != 3 or (
        memcmp(parser.at(head.method.start), b"GET", 3) != 0
    ):
        parts |= METHOD
    if head.target.size != 1 or head.path.size != 1:
        parts |= TARGET
    if head.query.size:
        parts |= QUERY
    if not head.minor:
        parts |= PROTOCOL
    return parts


cdef int set_parts(dict environ, RequestParser parser, int parts) except -1:
    cdef Head *head = &parser.head
    cdef object target
    if parts & METHOD:
        PyDict_SetItem(environ, K_METHOD, parser.method())
    if parts & TARGET:
        target = text_of(parser, head.target)
        PyDict_SetItem(environ, K_RAW_URI, target)
        PyDict_SetItem(environ, K_REQUEST_URI, target)
        PyDict_SetItem(environ, K_PATH, path_info(parser, target))
    if parts & QUERY:
        PyDict_SetItem(environ, K_QUERY, text_of(parser, head.query))
    if parts & PROTOCOL:
        PyDict_SetItem(
            environ, K_PROTOCOL, "HTTP/1.1" if head.minor else "HTTP/1.0"
        )
    return 0


cdef object path_info(RequestParser parser, object target):
    """Percent-decoded, each byte one latin-1 character (PEP 3333)."""
    cdef Head *head = &parser.head
    cdef const unsigned char *text = parser.at(head.path.start)
    if head.path.size == 0:
        return "/" if head.has_root else ""
    if memchr(text, c"%", head.path.size) is not NULL:
        return _parser.percent_decoded(
            (<const char *>text)[:head.path.size]
        ).decode("latin-1")
    if head.path.size == head.target.size:
        return target
    return text_of(parser, head.path)


cdef object unknown_key(const unsigned char *name, unsigned size):
    """HTTP_NAME; None for an underscore, which would pass for a hyphen."""
    cdef char *to
    cdef unsigned char c
    cdef unsigned i
    key = PyUnicode_New(size + 5, 127)
    to = <char *>PyUnicode_DATA(key)
    memcpy(to, b"HTTP_", 5)
    to += 5
    for i in range(size):
        c = name[i]
        if c == c"_":
            return None
        if c == c"-":
            c = c"_"
        elif c"a" <= c <= c"z":
            c -= 32
        to[i] = c
    return key
