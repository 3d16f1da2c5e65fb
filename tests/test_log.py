import io
import logging
import re
import sys

import pytest

from fasthttp import log


@pytest.fixture
def error_logger():
    yield from restored(log.ERROR_LOGGER)


@pytest.fixture
def access_logger():
    yield from restored(log.ACCESS_LOGGER)


def restored(name):
    logger = logging.getLogger(name)
    before = logger.handlers[:], logger.propagate, logger.level
    yield logger
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def lines_of(*calls):
    stream = io.StringIO()
    access_log = log.AccessLog.to_stream(stream)
    for call in calls:
        access_log(*call)
    return stream.getvalue().splitlines()


def test_combined_form():
    (line,) = lines_of(
        ("10.0.0.1", "GET /a?b HTTP/1.1", 200, 12, "http://r/", "curl/8")
    )
    assert re.fullmatch(
        r"10\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
        r' "GET /a\?b HTTP/1\.1" 200 12 "http://r/" "curl/8"',
        line,
    )


def test_a_stream_that_is_closed(error_logger, caplog):
    stream = io.StringIO()
    access_log = log.AccessLog.to_stream(stream)
    stream.close()
    for _ in range(2):
        access_log("", "", 200, 0, "", "")
    assert len(caplog.records) == 1


def test_what_is_missing_is_a_dash():
    (line,) = lines_of(("", "", 408, 0, "", ""))
    assert line.startswith("- - - [")
    assert line.endswith('] "-" 408 - "-" "-"')


def test_nothing_of_the_request_leaves_its_field():
    hostile = 'a" 200 1 "x\\" \x1b[31m\n\x7f\xe9'
    (line,) = lines_of(("::1", hostile, 200, 1, hostile, hostile))
    safe = r"a\x22 200 1 \x22x\x5c\x22 \x1b[31m\x0a\x7f\xe9"
    assert line.endswith(f'"{safe}" 200 1 "{safe}" "{safe}"')


class FullDisk(io.StringIO):
    full = True

    def flush(self):
        if self.full:
            raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nothing(caplog):
    stream = FullDisk()
    access_log = log.AccessLog.to_stream(stream)
    call = ("::1", "GET / HTTP/1.1", 200, 1, "", "")
    access_log(*call)
    access_log(*call)
    assert len(caplog.messages) == 1
    assert "No space left" in caplog.messages[0]
    stream.full = False
    access_log(*call)
    stream.full = True
    access_log(*call)
    assert len(caplog.messages) == 2


def test_percent_signs_are_text(caplog):
    with caplog.at_level(logging.INFO, log.ACCESS_LOGGER):
        log.AccessLog.to_logger()("::1", "GET /%s%d", 200, 1, "", "")
    assert '"GET /%s%d" 200 1' in caplog.messages[0]


def test_time_of_a_line(monkeypatch):
    moments = iter([0.9, 1.0, 1.5, 61.0])
    monkeypatch.setattr(log.time, "time", lambda: next(moments))
    lines = lines_of(*[("a", "b", 200, 1, "", "")] * 4)
    times = [line.split("[")[1].split("]")[0] for line in lines]
    assert times == [log.clf_time(second) for second in (0, 1, 1, 61)]


def test_months_are_english():
    moments = [86400 * 30 * month for month in range(13)]
    months = [log.clf_time(moment).split("/")[1] for moment in moments]
    assert months[0] in ("Jan", "Dec")
    assert {"May", "Oct", "Dec"} <= set(months)


def test_log_line(error_logger, capsys):
    log.configure("warning")
    error_logger.info("hidden")
    error_logger.error("seen")
    assert re.fullmatch(
        r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\]"
        r" \[\d+\] \[ERROR\] seen\n",
        capsys.readouterr().err,
    )


def test_configuring_twice_logs_once(error_logger, capsys):
    for _ in range(2):
        log.configure("info")
    error_logger.info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_the_access_log_goes_to_stdout_in_bare_lines(access_logger, capsys):
    log.configure_access()
    log.AccessLog.to_logger()("::1", "GET / HTTP/1.1", 200, 1, "", "")
    assert re.fullmatch(r"::1 - - .* 200 1 .*\n", capsys.readouterr().out)


def test_no_stdout_is_no_access_log(access_logger, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    log.configure_access()
    log.AccessLog.to_logger()("::1", "GET / HTTP/1.1", 200, 1, "", "")
    assert capsys.readouterr().err == ""
