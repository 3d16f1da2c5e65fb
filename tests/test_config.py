import dataclasses
import os
import socket

import pytest

from fasthttp.config import (
    Address,
    Config,
    bind_address,
    parse_address,
    parse_option,
    settings_from_environ,
    unknown_variables,
)
from fasthttp.errors import BindError, ConfigError, PeerError


@pytest.mark.parametrize(
    ("text", "family", "target"),
    [
        ("127.0.0.1:8000", socket.AF_INET, ("127.0.0.1", 8000)),
        ("localhost:0", socket.AF_INET, ("localhost", 0)),
        (":80", socket.AF_INET, ("0.0.0.0", 80)),
        ("[::]:65535", socket.AF_INET6, ("::", 65535)),
        ("[::1]:1", socket.AF_INET6, ("::1", 1)),
        ("[]:1", socket.AF_INET6, ("::", 1)),
        ("unix:/run/a.sock", socket.AF_UNIX, "/run/a.sock"),
        ("unix:relative", socket.AF_UNIX, "relative"),
        ("fd://3", None, 3),
    ],
)
def test_addresses(text, family, target):
    assert parse_address(text) == Address(family, target)
    assert Config(bind=text).bind == (text,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8000",
        "host",
        "a:b",
        "a:-1",
        "::1:80",
        "unix:",
        "fd://",
        "fd://x",
        "h:65536",
        "http://h:80",
        "[::1]",
        "h:80 ",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ConfigError, match="bind"):
        Config(bind=(text,))


def test_an_address_is_needed():
    with pytest.raises(ConfigError, match="bind"):
        Config(bind=())


@pytest.mark.parametrize("bind", [8000, [8000], None])
def test_an_address_is_a_text(bind):
    with pytest.raises(ConfigError, match=r"^bind: (8000|None) is no text"):
        Config(bind=bind)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "127.0.0.1:8000"),
        ({"host": ""}, ":8000"),
        ({"host": "::1", "port": 0}, "[::1]:0"),
        ({"port": "81"}, "127.0.0.1:81"),
        ({"uds": "/a"}, "unix:/a"),
        ({"fd": 0}, "fd://0"),
    ],
)
def test_addresses_from_parts(parts, text):
    assert bind_address(**parts) == text
    parse_address(text)


def test_parts_that_contradict():
    for parts in ({"host": "h", "uds": "/a"}, {"fd": 3, "uds": "/a"}):
        with pytest.raises(ConfigError, match="bind"):
            bind_address(**parts)


def test_a_config_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().threads = 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", -1),
        ("threads", 1.5),
        ("threads", True),
        ("threads", "2"),
        ("backlog", 0),
        ("keep_alive", -0.1),
        ("keep_alive", float("nan")),
        ("keep_alive", float("inf")),
        ("limit_request_line", 0),
        ("limit_request_head", 1 << 30),
        ("access_log", 1),
        ("log_level", "loud"),
    ],
)
def test_impossible_values_name_the_option(name, value):
    with pytest.raises(ConfigError, match=f"^{name}: "):
        Config(**{name: value})


def test_least_values():
    config = Config(threads=0, keep_alive=0, limit_request_body=0)
    assert config.threads == config.keep_alive == 0


def test_each_option_says_what_it_does():
    for option in dataclasses.fields(Config):
        assert option.metadata["help"], option.name
        takes_a_value = not isinstance(option.default, bool)
        assert bool(option.metadata["metavar"]) == takes_a_value, option.name


def test_options_from_text():
    options = {each.name: each for each in dataclasses.fields(Config)}
    assert parse_option(options["threads"], "4") == 4
    assert parse_option(options["keep_alive"], "0.5") == 0.5
    assert parse_option(options["access_log"], "Yes") is True
    assert parse_option(options["server_header"], "0") is False
    assert Config(log_level="Debug").log_level == "debug"
    for name, text in (("threads", "1.5"), ("access_log", "maybe")):
        with pytest.raises(ConfigError, match=name):
            parse_option(options[name], text)


def test_settings_from_environ():
    environ = {
        "FASTHTTP_THREADS": "3",
        "FASTHTTP_ACCESS_LOG": "on",
        "FASTHTTP_BIND": "a:1,b:2 unix:c",
        "THREADS": "9",
    }
    assert settings_from_environ(environ) == {
        "threads": 3,
        "access_log": True,
        "bind": ("a:1", "b:2", "unix:c"),
    }
    assert settings_from_environ({}) == {}


def test_other_names_of_options_in_the_environment():
    environ = {
        "FASTHTTP_TIMEOUT_KEEP_ALIVE": "1",
        "FASTHTTP_LIMIT_CONCURRENCY": "2",
        "FASTHTTP_WORKER_CONNECTIONS": "3",
    }
    settings = {"keep_alive": 1, "worker_connections": 3}
    assert settings_from_environ(environ) == settings
    assert unknown_variables(environ) == []


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"FASTHTTP_HOST": "h"}, "h:8000"),
        ({"FASTHTTP_HOST": "h", "PORT": "5000"}, "h:5000"),
        ({"FASTHTTP_PORT": "1", "PORT": "5000"}, "127.0.0.1:1"),
        ({"FASTHTTP_HOST": "::1", "FASTHTTP_PORT": "1"}, "[::1]:1"),
        ({"FASTHTTP_UDS": "/s", "PORT": "5000"}, "unix:/s"),
        ({"FASTHTTP_FD": "3", "FASTHTTP_HOST": ""}, "fd://3"),
        ({"FASTHTTP_PORT": "tcp://10.0.0.1:80", "PORT": "1"}, "0.0.0.0:1"),
    ],
)
def test_parts_of_an_address_in_the_environment(environ, address):
    assert settings_from_environ(environ) == {"bind": (address,)}
    assert unknown_variables(environ) == []


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PORT": "abc"}, "PORT: 'abc' is no number"),
        ({"PORT": "65536"}, "PORT: '65536' is no number"),
        ({"FASTHTTP_PORT": "-1"}, "FASTHTTP_PORT: '-1' is no number"),
        ({"FASTHTTP_FD": "x"}, "FASTHTTP_FD: 'x' is no number"),
        ({"FASTHTTP_THREADS": "x"}, "FASTHTTP_THREADS: threads: 'x' is no"),
        ({"FASTHTTP_THREADS": "-1"}, "FASTHTTP_THREADS: threads: -1 is not"),
        ({"FASTHTTP_LOG_LEVEL": "x"}, "FASTHTTP_LOG_LEVEL: log_level: 'x'"),
        ({"FASTHTTP_BIND": "x"}, "FASTHTTP_BIND: bind: 'x' is none of"),
        ({"FASTHTTP_UDS": "s", "FASTHTTP_FD": "3"}, "FASTHTTP_HOST, .* give"),
        ({"FASTHTTP_BIND": ":1", "FASTHTTP_FD": "3"}, "bind: give FASTHTTP_B"),
    ],
)
def test_bad_values_name_their_variable(environ, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        settings_from_environ(environ)


def test_what_is_empty_in_the_environment_is_not_set():
    names = "KEEP_ALIVE", "BIND", "ACCESS_LOG", "LOG_LEVEL", "PORT", "UDS"
    environ = {f"FASTHTTP_{name}": "" for name in names} | {"PORT": ""}
    assert settings_from_environ(environ) == {}


def test_names_that_are_no_option():
    environ = dict.fromkeys(
        [
            "FASTHTTP_KEEPALIVE",
            "FASTHTTP_B",
            "FASTHTTP_THREADS",
            "FASTHTTP_TRACE",
            "FASTHTTP_SERVICE_HOST",
            "FASTHTTP_PORT_80_TCP",
            "KEEPALIVE",
        ],
        "1",
    )
    assert unknown_variables(environ) == ["FASTHTTP_B", "FASTHTTP_KEEPALIVE"]


def test_environ_order_of_addresses():
    port = {"PORT": "5000"}
    systemd = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}
    own = {"FASTHTTP_BIND": "h:1"}
    assert settings_from_environ(port) == {"bind": ("0.0.0.0:5000",)}
    assert settings_from_environ(port | systemd) == {
        "bind": ("fd://3", "fd://4")
    }
    assert settings_from_environ(port | systemd | own) == {"bind": ("h:1",)}


@pytest.mark.parametrize("count", ["x", "-1", "1.5", "65536", "9" * 5000])
def test_an_impossible_number_of_descriptors(count):
    environ = {"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())}
    with pytest.raises(ConfigError, match=r"^LISTEN_FDS: .* is no number"):
        settings_from_environ(environ)


@pytest.mark.parametrize("count", ["", "0"])
def test_no_descriptors(count):
    environ = {"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())}
    assert settings_from_environ(environ) == {}


def test_descriptors_for_another_process_are_left_alone():
    assert settings_from_environ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == {}


def test_errors_are_also_the_built_in_ones():
    assert issubclass(ConfigError, ValueError)
    error = BindError("taken", 98)
    assert isinstance(error, OSError)
    assert (str(error), error.errno) == ("taken", 98)


def test_a_peer_error_carries_its_answer():
    error = PeerError(431, "too many fields", offset=7)
    assert (error.status, error.detail, error.offset) == (
        431,
        "too many fields",
        7,
    )
    assert str(error) == "too many fields"
