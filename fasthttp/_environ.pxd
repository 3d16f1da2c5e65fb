from fasthttp._parser cimport RequestParser


cdef class EnvironTemplate:
    cdef dict _template
    cdef str _remote_addr
    cdef str _remote_port

    cdef dict make(
        self, RequestParser parser, str remote_addr, str remote_port
    )
