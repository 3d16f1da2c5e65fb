"""Servers without WSGI: python protocols.py NAME PORT."""

import sys

HOST = "127.0.0.1"
ANSWER = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 5\r\n"
    b"Server: fixed\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    b"\r\n"
    b"hello"
)


def fixed(answer):
    """A BaseProtocol in Python that answers anything with `answer`."""
    from fasthttp import BaseProtocol

    class Fixed(BaseProtocol):
        def on_new_connection(self, address):
            pass

        def on_data_received(self, data):
            self.send(answer)

        def on_connection_closed(self):
            pass

    return Fixed


def base_protocol(port):
    """fasthttp's BaseProtocol in Python, parsing nothing."""
    from fasthttp import AsyncSocketServer

    AsyncSocketServer(HOST, port, fixed(ANSWER), backlog=2048).accept_clients()


def on_request(port):
    """fasthttp's HttpProtocol, answered without WSGI."""
    from fasthttp import AsyncSocketServer, HttpProtocol

    class Hello(HttpProtocol):
        def on_request(self, request):
            self.respond(200, [("Content-Type", "text/plain")], b"hello")

    AsyncSocketServer(HOST, port, Hello, backlog=2048).accept_clients()


def uvloop_protocol(port):
    """asyncio.Protocol on uvloop, parsing nothing."""
    import asyncio

    import uvloop

    class Fixed(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(ANSWER)

    async def serve():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Fixed, HOST, port, backlog=2048)
        await server.serve_forever()

    uvloop.run(serve())


def japronto(port):
    """japronto's own interface."""
    from japronto import Application

    app = Application()
    app.router.add_route("/", lambda request: request.Response("hello"))
    app.run(HOST, port, worker_num=1)


def bare_threads(port):
    """A thread for each connection; it receives, sleeps and sends."""
    import contextlib
    import socket
    import threading
    import time

    import apps

    def serve(client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        with client, contextlib.suppress(ConnectionResetError):
            while client.recv(65536):
                time.sleep(apps.SLEEP_SECONDS)
                client.sendall(ANSWER)

    with socket.create_server((HOST, port), backlog=2048) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=[client], daemon=True).start()


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))
