import contextlib
import errno
import itertools
import os
import select
import socket
import stat

import pytest

from fasthttp import listeners as listeners_module
from fasthttp.config import Config
from fasthttp.errors import BindError
from fasthttp.listeners import (
    DEFER_SECONDS,
    HANDSHAKE_SECONDS,
    bind_listeners,
    close_listeners,
    defer_accept,
    describe,
    refuse_new_clients,
)

PATIENCE = 10


@pytest.fixture
def bind():
    opened = []

    def bind(*addresses):
        listeners = bind_listeners(Config(bind=addresses))
        opened.extend(listeners)
        return listeners

    yield bind
    close_listeners(opened)


def connect(address, family=socket.AF_INET):
    with socket.socket(family) as client:
        return client.connect_ex(address)


def test_a_free_port(bind):
    (listener,) = bind("127.0.0.1:0")
    port = listener.getsockname()[1]
    assert describe(listener) == f"http://127.0.0.1:{port}"
    assert connect(("127.0.0.1", port)) == 0
    assert not listener.get_inheritable()


def test_several_addresses(bind, tmp_path):
    path = tmp_path / "socket"
    listeners = bind("127.0.0.1:0", "[::1]:0", f"unix:{path}")
    urls = [describe(each) for each in listeners]
    assert urls[1].startswith("http://[::1]:")
    assert urls[2] == f"unix:{path}"
    for each in listeners:
        assert connect(each.getsockname(), each.family) == 0


def test_dual_stack(bind):
    (listener,) = bind("[::]:0")
    port = listener.getsockname()[1]
    assert connect(("127.0.0.1", port)) == 0
    assert connect(("::1", port), socket.AF_INET6) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_both_families_on_one_port(bind, free_port, order):
    bind(*[f"127.0.0.1:{free_port}", f"[::]:{free_port}"][::order])
    assert connect(("127.0.0.1", free_port)) == 0
    assert connect(("::1", free_port), socket.AF_INET6) == 0


def test_a_taken_port(bind):
    (listener,) = bind("127.0.0.1:0")
    address = "{}:{}".format(*listener.getsockname())
    with pytest.raises(BindError) as caught:
        bind(address)
    assert str(caught.value) == (
        f"cannot listen on {address}: address already in use"
    )
    assert caught.value.errno == errno.EADDRINUSE


def test_a_failure_leaves_nothing_open(bind, tmp_path):
    path = tmp_path / "socket"
    with pytest.raises(BindError):
        bind(f"unix:{path}", "192.0.2.1:80")
    assert not path.exists()


def test_a_name_that_does_not_resolve(bind):
    with pytest.raises(BindError, match=r"^cannot listen on name\.invalid:80"):
        bind("name.invalid:80")


@pytest.mark.parametrize("name", ["é..x", "\udcff", "a\0b"])
def test_what_is_no_name(bind, name):
    with pytest.raises(BindError, match=r"^cannot listen on .*name") as caught:
        bind(f"{name}:80")
    assert caught.value.errno is None
    with pytest.raises(BindError, match=r"^cannot listen on unix:"):
        bind(f"unix:/none/{name}\0")


def test_an_address_whose_connections_have_just_ended(bind):
    """They stay in TIME_WAIT where the server closes first."""
    (listener,) = bind("127.0.0.1:0")
    address = listener.getsockname()
    with socket.create_connection(address) as client:
        listener.accept()[0].close()
        assert client.recv(1) == b""
    listener.close()
    (again,) = bind(f"127.0.0.1:{address[1]}")
    assert again.getsockname() == address


def test_an_address_with_a_zone(bind, monkeypatch):
    def resolve(host, port, family):
        assert (host, family) == ("fe80::1%lo", socket.AF_INET6)
        return [(family, 1, 6, "", ("::1", port, 0, 1))]

    with pytest.raises(BindError, match="cannot listen"):
        bind("[fe80::1%none]:0")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    (listener,) = bind("[fe80::1%lo]:0")
    assert listener.getsockname()[0] == "::1"


def test_the_url_of_an_address_with_a_zone():
    class Listener:
        family = socket.AF_INET6

        def getsockname(self):
            return ("fe80::1", 80, 0, index)

    index, name = socket.if_nameindex()[0]
    assert describe(Listener()) == f"http://[fe80::1%{name}]:80"


def test_acronyms_are_kept(bind, tmp_path):
    with pytest.raises(BindError, match=r": AF_UNIX path too long$"):
        bind(f"unix:{tmp_path}/{'x' * 108}")


def test_a_unix_path_is_removed_at_the_end(bind, tmp_path):
    path = tmp_path / "socket"
    (listener,) = bind(f"unix:{path}")
    assert stat.S_ISSOCK(path.stat().st_mode)
    listener.close()
    listener.close()
    assert not path.exists()


def test_a_relative_unix_path_is_removed_from_anywhere(
    bind, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (listener,) = bind("unix:socket")
    assert describe(listener) == "unix:socket"
    monkeypatch.chdir("/")
    listener.close()
    assert not (tmp_path / "socket").exists()


def test_a_unix_path_that_cannot_be_removed(bind, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "not ours any more")

    (listener,) = bind(f"unix:{tmp_path}/s")
    monkeypatch.setattr(os, "unlink", refuse)
    listener.close()
    assert listener.fileno() == -1


def test_nobody_new_comes_by_a_unix_path_at_a_stop(bind, tmp_path):
    """Who came before is accepted; who came between would be reset."""
    path = f"{tmp_path}/s"
    (listener,) = bind(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(path)
        assert refuse_new_clients([listener]) == 0
        assert connect(path, socket.AF_UNIX) == errno.ENOENT
        listener.accept()[0].close()


def test_a_stale_unix_path_is_replaced(bind, tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    bind(f"unix:{path}")
    assert connect(str(path), socket.AF_UNIX) == 0


def test_a_living_unix_path_is_not_replaced(bind, tmp_path):
    path = tmp_path / "socket"
    bind(f"unix:{path}")
    with pytest.raises(BindError, match="address already in use"):
        bind(f"unix:{path}")
    assert connect(str(path), socket.AF_UNIX) == 0


def test_another_servers_unix_path_is_left_alone(bind, tmp_path):
    path = tmp_path / "socket"
    (first,) = bind(f"unix:{path}")
    path.unlink()
    bind(f"unix:{path}")
    first.close()
    assert connect(str(path), socket.AF_UNIX) == 0


def test_a_forked_copy_does_not_remove_the_path(bind, tmp_path):
    path = tmp_path / "socket"
    (listener,) = bind(f"unix:{path}")
    listener.owner = os.getppid()
    listener.close()
    assert path.exists()


def test_a_file_is_never_replaced(bind, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("precious")
    with pytest.raises(BindError, match="is no socket"):
        bind(f"unix:{path}")
    assert path.read_text() == "precious"


def test_an_inherited_descriptor(bind):
    with socket.create_server(("127.0.0.1", 0)) as original:
        address = original.getsockname()
        os.set_inheritable(fd := os.dup(original.fileno()), True)
    (listener,) = bind(f"fd://{fd}")
    assert listener.getsockname() == address
    assert not listener.get_inheritable()
    assert connect(address) == 0


def test_descriptors_that_cannot_listen(bind, tmp_path):
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        fd = os.dup(datagram.fileno())
        with pytest.raises(BindError, match="no stream socket"):
            bind(f"fd://{fd}")
    with (
        (tmp_path / "file").open("w") as file,
        pytest.raises(BindError, match="cannot listen on fd://"),
    ):
        bind(f"fd://{file.fileno()}")
    with pytest.raises(BindError, match="bad file descriptor"):
        bind("fd://987654")
    with pytest.raises(BindError, match="negative file descriptor"):
        bind(f"fd://{1 << 31}")


def test_a_system_without_ipv6(bind, monkeypatch):
    def refuse(family):
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(BindError, match=r"on \[::\]:0: address family not"):
        bind("[::]:0")


@pytest.fixture
def deferring(bind, monkeypatch):
    """A listener that holds back clients, as long as they are silent."""

    def deferring(address):
        listeners = bind(address)
        with monkeypatch.context() as patch:
            patch.setattr(listeners_module, "DEFER_SECONDS", 3600)
            defer_accept(listeners)
        return listeners[0]

    return deferring


def test_a_client_is_held_back_until_it_speaks(deferring):
    listener = deferring("127.0.0.1:0")
    listener.setblocking(False)
    with connected(listener) as speaking, connected(listener):
        with pytest.raises(BlockingIOError):
            listener.accept()
        speaking.sendall(b"x")
        assert accept_name(listener) == speaking.getsockname()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_listener_that_cannot_hold_back_serves_all_the_same():
    class Refusing(socket.socket):
        def setsockopt(self, *arguments):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    with Refusing() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        defer_accept([listener])
        with connected(listener) as silent:
            assert accept_name(listener) == silent.getsockname()


def test_clients_under_way_are_waited_for(bind, tmp_path, monkeypatch):
    monkeypatch.setattr(listeners_module, "MOST_LINES", 1 << 20)
    listeners = bind("127.0.0.1:0", "[::]:0", f"unix:{tmp_path}/socket")
    defer_accept(listeners)
    assert refuse_new_clients(listeners[2:]) == 0
    assert refuse_new_clients(listeners) == HANDSHAKE_SECONDS
    monkeypatch.setattr(listeners_module, "SO_ATTACH_FILTER", 9999)
    assert refuse_new_clients(bind("127.0.0.1:0")) == HANDSHAKE_SECONDS


def test_connections_without_number_are_not_looked_through(bind, monkeypatch):
    without_end = itertools.repeat(b"0: 0100007F:1F90 0100007F:8000 06 0:0\n")

    def open_table(*arguments):
        return contextlib.nullcontext(without_end)

    monkeypatch.setattr(listeners_module, "open", open_table, raising=False)
    listeners = bind("127.0.0.1:0")
    defer_accept(listeners)
    seconds = HANDSHAKE_SECONDS + DEFER_SECONDS
    assert refuse_new_clients(listeners) == seconds


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "[::]:0"])
def test_silent_clients_are_waited_for(deferring, address):
    listener = deferring(address)
    with connected(listener):
        seconds = HANDSHAKE_SECONDS + DEFER_SECONDS
        assert refuse_new_clients([listener]) == seconds


def test_silent_clients_are_not_forgotten(bind):
    listeners = bind("127.0.0.1:0")
    defer_accept(listeners)
    (listener,) = listeners
    with connected(listener) as silent:
        listener.settimeout(refuse_new_clients(listeners))
        accepted, name = listener.accept()
        accepted.close()
        assert name == silent.getsockname()


def test_a_refused_client_finds_nobody(bind):
    (listener,) = listeners = bind("127.0.0.1:0")
    refuse_new_clients(listeners)
    with socket.socket() as client:
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.connect(listener.getsockname())


def test_whoever_takes_over_a_socket_takes_clients(bind):
    (listener,) = listeners = bind("127.0.0.1:0")
    refuse_new_clients(listeners)
    defer_accept(listeners)
    with socket.socket() as client:
        client.settimeout(PATIENCE)
        client.connect(listener.getsockname())


def connected(listener):
    return socket.create_connection(listener.getsockname()[:2])


def accept_name(listener):
    assert select.select([listener], [], [], PATIENCE)[0]
    accepted, name = listener.accept()
    accepted.close()
    return name
