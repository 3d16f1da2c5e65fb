"""The command `fasthttp module:app`, derived from the fields of Config."""

import argparse
import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from .api import load_app
from .config import (
    PLACE,
    VERSION,
    Config,
    Option,
    bind_address,
    parse_option,
    place_from_environ,
    settings_from_environ,
    unknown_variables,
)
from .errors import ConfigError, FastHttpError
from .listeners import bind_listeners, close_listeners
from .log import ERROR_LOGGER, AccessLog, configure
from .worker import Worker

DEMO = "fasthttp.demo:app"
_log = logging.getLogger(ERROR_LOGGER)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for all other errors; the help is long."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The argument parser; values stay texts, absent options stay absent."""
    parser = _Parser(
        prog="fasthttp",
        description="Serve a WSGI application over HTTP/1.1.",
        epilog="Each option can be set as FASTHTTP_<OPTION> in the"
        " environment, too; PORT=N stands for --bind 0.0.0.0:N.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {VERSION}"
    )
    parser.add_argument(
        "app",
        metavar="module:app",
        help="the application; also module:factory(), with literals as"
        " arguments, or a module that has an app or application",
    )
    bind = parser.add_argument_group("address")
    bind.add_argument("--host", help="--bind HOST, at --port, PORT or 8000")
    bind.add_argument(
        "--port", type=int, metavar="N", help="--bind at --host or 127.0.0.1"
    )
    bind.add_argument("--uds", metavar="PATH", help="--bind unix:PATH")
    bind.add_argument("--fd", type=int, metavar="N", help="--bind fd://N")
    for option in dataclasses.fields(Config):
        _add_option(bind if option.name == "bind" else parser, option)
    return parser


def _add_option(parser: argparse._ActionsContainer, option: Option) -> None:
    names = "--" + option.name.replace("_", "-"), *option.metadata["names"]
    default = option.default
    how: dict[str, Any] = {"metavar": option.metadata["metavar"]}
    if isinstance(default, bool):
        how = {"action": argparse.BooleanOptionalAction}
        default = "on" if default else "off"
    elif isinstance(default, tuple):
        how["action"] = "append"
        default = " ".join(default)
    elif isinstance(default, float):
        default = f"{default:g}"
    text = f"{option.metadata['help']} (default: {default})"
    parser.add_argument(*names, dest=option.name, help=text, **how)


def read_config(
    arguments: dict[str, Any], environ: Mapping[str, str]
) -> Config:
    """Join arguments, environment and defaults, in this order.

    The access log is on by default where stdout is a terminal. Raises
    ConfigError.
    """
    place = {name: arguments.pop(name) for name in PLACE if name in arguments}
    if place and "bind" in arguments:
        raise ConfigError("bind: give --bind, or --host, --port, --uds, --fd")
    if "host" in place or "port" in place:
        place = place_from_environ(environ, place)
    if place:
        arguments["bind"] = (bind_address(**place),)
    for option in dataclasses.fields(Config):
        text = arguments.get(option.name)
        if isinstance(text, str):
            arguments[option.name] = parse_option(option, text)
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    settings: dict[str, Any] = {"access_log": is_terminal}
    settings |= settings_from_environ(environ, arguments)
    return Config(**(settings | arguments))


def serve(spec: str, config: Config) -> None:
    """Serve the application `spec` in this process until a signal.

    Raises FastHttpError when it cannot.
    """
    listeners = bind_listeners(config)
    try:
        try:
            app = load_app(spec)
        finally:
            # dictConfig in the application disables loggers it does not name
            _log.disabled = False
        if signal.getsignal(signal.SIGTERM) is _pass_over:
            # what was to end it, the application has caught
            raise KeyboardInterrupt
        log = None
        if config.access_log and sys.stdout is not None:
            log = AccessLog.to_stream(sys.stdout)
        try:
            worker = Worker(app, config, listeners, access_log=log)
        except OSError as error:  # say, for want of descriptors
            raise FastHttpError(f"cannot start: {error.strerror}") from None

        def announce() -> None:
            worker.announce()
            if spec == DEMO:
                _log.info("this is the demo; your own: fasthttp module:app")

        worker.run(signals=True, on_ready=announce)
        _log.info("stopped")
    finally:
        close_listeners(listeners)
    if worker.ended_by is not None:
        _tell_application(worker.ended_by)


def _tell_application(number: int) -> None:
    """Let its own handler of the signal, if it has set one, do its work."""
    handler = signal.getsignal(number)
    if not callable(handler) or handler is _interrupt:
        return
    try:
        # an exit is what it gets, and it may call the handler it replaced
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            signal.raise_signal(number)
    except Exception:
        _log.exception("exception in the application's signal handler")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or `FastHttpError.exit_code`.

    0: stopped by SIGTERM or SIGINT, 1: an address cannot be taken or the
    system's limits are too low, 2: usage, 4: the application cannot be loaded.
    """
    parser = build_parser()
    arguments = vars(parser.parse_args(argv))
    spec = arguments.pop("app")
    with contextlib.suppress(OSError):  # the directory was removed
        sys.path.insert(0, os.getcwd())
    try:
        config = read_config(arguments, os.environ)
    except ConfigError as error:
        parser.exit(error.exit_code, f"fasthttp: error: {error}\n")
    configure(config.log_level)
    try:
        if unknown := unknown_variables(os.environ):
            _log.warning("no such option: %s", ", ".join(unknown))
        serve(spec, config)
    except FastHttpError as error:
        _log.critical(error, exc_info=error.__cause__)
        return error.exit_code
    except KeyboardInterrupt:
        _log.info("interrupted")
    return 0


def command() -> int:
    """What the command itself runs: `main`, and signals at any time.

    They end it in order while the application is being loaded, too, and do
    not change the exit code once it is known.
    """
    code = 0
    # or a socket would be what others write to as stderr
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    with contextlib.suppress(KeyboardInterrupt):
        _handle_signals(_interrupt)
        code = main()
        _handle_signals(_pass_over)
    # or Python would end with 120 for what it could not write
    for fd, stream in (1, sys.stdout), (2, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        except Exception:  # there is none, or one of the application's
            pass
    # Python takes its own handlers away before the process ends
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _handle_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _handle_signals(_pass_over)
    raise KeyboardInterrupt


def _pass_over(number: int, frame: FrameType | None) -> None:
    # a way out where threads or atexit functions of the application hang
    if number == signal.SIGQUIT:
        os._exit(0)
