"""What a loop waits at: descriptors, and gates for other threads."""

import math
import socket

import pytest
from fakes import POLLERS, use_poller

from fasthttp import AsyncSocketServer
from fasthttp import server as server_module
from fasthttp._poller import EpollPoller, Events
from fasthttp._transport import Connections


@pytest.fixture(params=POLLERS)
def poller(request, monkeypatch):
    use_poller(request.param, monkeypatch)
    poller = server_module.make_poller()
    yield poller
    poller.close()


@pytest.fixture
def connections(poller):
    """What the poller's events are handed to."""
    return Connections(AsyncSocketServer, poller)


def test_what_has_no_room_comes_with_the_next_poll(poller, connections, stack):
    called = []
    for _ in range(3):
        ours, theirs = map(stack.enter_context, socket.socketpair())
        poller.register(ours.fileno(), 1)
        connections.set_handler(ours.fileno(), lambda s=ours: called.append(s))
        theirs.send(b"x")
    events = Events(2)
    for expected in (2, 3):
        poller.poll(math.inf, events)
        connections.dispatch(events)
        for ready in called:
            poller.modify(ready.fileno(), 0)
        assert len(set(called)) == len(called) == expected
    poller.poll(0, events)
    connections.dispatch(events)
    assert len(called) == 3


def test_those_that_are_always_ready_leave_others_their_turn(
    poller, connections, stack
):
    called = []
    for number in range(5):
        ours, theirs = map(stack.enter_context, socket.socketpair())
        poller.register(ours.fileno(), 1)
        connections.set_handler(
            ours.fileno(), lambda number=number: called.append(number)
        )
        theirs.send(b"x")
    events = Events(2)
    for _ in range(10):
        poller.poll(math.inf, events)
        connections.dispatch(events)
    assert sorted(called) == sorted([*range(5)] * 4)


def test_what_is_not_watched_any_more_is_not_told(poller, connections, stack):
    called = []
    ours, theirs = map(stack.enter_context, socket.socketpair())
    connections.set_handler(ours.fileno(), lambda: called.append("read"))
    events = Events(1)
    theirs.send(b"x")
    poller.register(ours.fileno(), 1)
    poller.poll(math.inf, events)
    connections.set_handler(ours.fileno(), None)
    connections.dispatch(events)
    poller.unregister(ours.fileno())
    poller.poll(0, events)
    connections.set_handler(ours.fileno(), lambda: called.append("again"))
    connections.dispatch(events)
    assert called == []


def test_epoll_tells_what_the_system_refuses(stack):
    poller = EpollPoller()
    ours, _ = map(stack.enter_context, socket.socketpair())
    with pytest.raises(FileNotFoundError):
        poller.modify(ours.fileno(), 1)
    with pytest.raises(FileNotFoundError):
        poller.unregister(ours.fileno())
    poller.register(ours.fileno(), 1)
    with pytest.raises(FileExistsError):
        poller.register(ours.fileno(), 1)
    poller.close()
    poller.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        poller.poll(0, Events(1))
    with pytest.raises(TypeError):
        poller.poll(0, None)
