"""The application of `make run`: says what this is, shows the request."""

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>fasthttp</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 50rem; padding: 0 1rem; color: #222; background: #fff }}
pre {{ background: #f3f3f3; padding: .8rem; overflow-x: auto }}
table {{ border-collapse: collapse; width: 100%; font-size: .85rem }}
td {{ border-top: 1px solid #ddd; padding: .2rem .5rem .2rem 0;
  vertical-align: top; overflow-wrap: anywhere; font-family: monospace }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #ddd; background: #1a1a1a }} pre {{ background: #2a2a2a }} }}
</style>
<h1>It works</h1>
<p>This page comes from fasthttp's built-in demo, a WSGI application that
shows what the server passed to it. Serve your own: put</p>
<pre>def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello, World!\\n"]</pre>
<p>into <code>hello.py</code> and run, in the same directory,</p>
<pre>python -m fasthttp hello:app</pre>
<p>A Flask or Django application is served the same way;
<code>python -m fasthttp --help</code> lists the options.</p>
<h2>Your request</h2>
<table>
{rows}
</table>
"""
ROW = "<tr><td>{}<td>{}"


def app(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Answer any request with a page about it (PEP 3333)."""
    rows = (
        ROW.format(escape(name), escape(str(value)))
        for name, value in sorted(environ.items())
    )
    # "str" in WSGI is latin-1; what else an object's text may hold is not
    page = PAGE.format(rows="\n".join(rows)).encode("utf-8", "replace")
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page))),
        ],
    )
    return [page]
