"""Imports point down the table of layers only, and never in a circle."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "fasthttp"
LAYERS = (
    ("errors", "config", "_fields"),
    (
        "_poller",
        "_protocol",
        "_parser",
        "_serializer",
        "_store",
        "listeners",
    ),
    ("_transport", "_environ", "server"),
    ("_http1",),
    ("_wsgi",),
    ("log", "worker"),
    ("api", "simple_server"),
    ("cli", "demo", "__init__", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
WITHIN_A_LAYER = {
    ("config", "errors"),
    ("server", "_transport"),
    ("worker", "log"),
    ("__main__", "cli"),
}
CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+(?:fasthttp)?\.(\w+)\s+c?import\b"
    r"|c?import\s+fasthttp\.(\w+))",
    re.MULTILINE,
)


def imported(path):
    source = path.read_text()
    if path.suffix != ".py":
        return {a or b for a, b in CYTHON_IMPORT.findall(source)}
    nodes = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    return {
        name
        for node in nodes
        for name in (
            [node.module] if node.module else [a.name for a in node.names]
        )
    }


def test_imports_point_down():
    sources = [
        path
        for path in PACKAGE.iterdir()
        if path.suffix in (".py", ".pyx", ".pxd")
    ]
    assert {path.stem for path in sources} == set(LEVEL)
    upwards = {
        (path.stem, name)
        for path in sources
        for name in imported(path) - {path.stem}
        if LEVEL[name] >= LEVEL[path.stem]
    }
    assert upwards <= WITHIN_A_LAYER


def test_no_line_exceeds_80_columns():
    root = PACKAGE.parent
    patterns = (
        "*.md",
        "docs/*.md",
        "*.toml",
        "Makefile",
        ".ci/run",
        "setup.py",
        "fasthttp/*.py*",
        "fasthttp/*.h",
        *(
            f"{place}/**/*.{kind}"
            for place in ("tests", "bench", "fuzz")
            for kind in ("py", "pyx", "c", "h", "sh", "lua", "md")
        ),
        *(f"tests/peers/*.{kind}" for kind in ("cfg", "conf", "go", "mjs")),
    )
    long = [
        f"{path.relative_to(root)}:{number}"
        for pattern in patterns
        for path in root.glob(pattern)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 80
    ]
    assert long == []
