"""The Flask workload."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    """Answer as apps.hello does."""
    return "hello", {"Content-Type": "text/plain"}
