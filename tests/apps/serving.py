"""The real command for an application of this directory."""

import contextlib
from pathlib import Path

from conftest import Command

HERE = Path(__file__).parent


@contextlib.contextmanager
def serving(spec, *arguments, env=None, **popen):
    """Serve on port 0; at the end stop it, which has to go well."""
    watch = {"PYTHONWARNINGS": "always::ResourceWarning"}
    place = "--bind", "127.0.0.1:0"
    server = Command(
        *place,
        *arguments,
        spec,
        cwd=HERE,
        env=watch | (env or {}),
        **popen,
    )
    try:
        yield server.wait_for_urls()
        assert server.stop() == 0
        assert "ResourceWarning" not in server.stderr, server.stderr
    finally:
        server.close()
