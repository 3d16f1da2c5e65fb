"""What is published: the sdist builds, the wheel serves by itself."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INSTALLED = """
from importlib.metadata import distributions, entry_points
print(*[each.name for each in distributions()])
print(entry_points(group="paste.server_runner")["main"].load().__name__)
"""
HOOK = "from setuptools import build_meta; print(build_meta.{}({!r}))"


def build(hook, source, target):
    # unoptimised, because here it only has to work
    environ = os.environ | {"CFLAGS": "-O0 -g0", "FASTHTTP_TRACE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", HOOK.format(hook, str(target))],
        cwd=source,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build("build_sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory):
    place = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "xzf", sdist], cwd=place, check=True)
    (source,) = place.iterdir()
    return source


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory):
    # Cython makes the same of the same; a test sees that they are.
    shutil.copytree(ROOT / "build/cython", unpacked / "build/cython")
    return build("build_wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def test_sdist_holds_sources_as_they_are(unpacked):
    sources = [
        *ROOT.glob("fasthttp/*.p[xy]*"),
        *ROOT.glob("fasthttp/*.h"),
        *(ROOT / name for name in ("setup.py", "pyproject.toml")),
    ]
    assert {"_http1.pyx", "_http1.pxd", "_http1.pyi", "api.py", "_scan.h"} <= {
        path.name for path in sources
    }
    for path in sources:
        copy = unpacked / path.relative_to(ROOT)
        assert copy.read_bytes() == path.read_bytes(), path


def test_sdist_holds_sources_only(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "Makefile", "tests/conftest.py"} <= names
    generated = {name for name in names if name.endswith((".so", ".pyc"))}
    assert not generated
    assert not {n for n in names if n.startswith("fasthttp/_") and ".c" in n}


def test_wheel_holds_what_runs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for path in (ROOT / "fasthttp").glob("*.pyx"):
        assert f"fasthttp/{path.stem}{suffix}" in names
        assert f"fasthttp/{path.stem}.pyi" in names
    assert "fasthttp/py.typed" in names
    kinds = {Path(name).suffix for name in names if "dist-info" not in name}
    assert kinds == {".py", ".pyi", ".so", ".typed"}


def test_wheel_serves_in_an_empty_environment(wheel, tmp_path):
    place = tmp_path / "environment"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-index", wheel], check=True
    )
    found = subprocess.run(
        [python, "-I", "-c", INSTALLED],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert found.split() == ["fasthttp", "serve_paste"]
    with subprocess.Popen(
        [place / "bin" / "fasthttp", "--port", "0", "fasthttp.demo:app"],
        cwd=tmp_path,
        env={"PATH": ""},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = ""
            while "listening at" not in line:
                line = process.stderr.readline()
                assert line
            with urllib.request.urlopen(line.split()[-1]) as response:
                assert b"It works" in response.read()
            process.terminate()
            process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
