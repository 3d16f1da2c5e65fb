"""A Flask application that does what such applications do."""

import os

import flask
from bodies import digest

app = flask.Flask(
    __name__, static_folder=os.environ["FILES"], static_url_path="/static"
)
app.secret_key = "not a secret"


@app.get("/")
def index():
    return "<h1>It works</h1>"


@app.post("/json")
def json():
    return {"got": flask.request.get_json()}


@app.post("/upload")
def upload():
    files = flask.request.files.items(multi=True)
    return {
        "form": flask.request.form.to_dict(flat=False),
        "files": [
            {"field": field, "name": file.filename, **digest(file.stream)}
            for field, file in files
        ],
    }


@app.route("/raw", methods=["POST", "PUT"])
def raw():
    return digest(flask.request.stream) | {
        "length": flask.request.content_length
    }


@app.get("/stream/<int:count>")
def stream(count):
    def lines():
        for number in range(count):
            yield f"{flask.request.path} {number}\n"

    return flask.stream_with_context(lines()), {"Content-Type": "text/plain"}


@app.get("/download/<name>")
def download(name):
    return flask.send_from_directory(
        os.environ["FILES"], name, as_attachment=True
    )


@app.post("/login")
def login():
    flask.session["user"] = flask.request.form["user"]
    return flask.redirect(flask.url_for("account"))


@app.get("/account")
def account():
    if "user" not in flask.session:
        return flask.redirect("/")
    flask.session["visits"] = flask.session.get("visits", 0) + 1
    return {key: flask.session[key] for key in ("user", "visits")}


@app.post("/logout")
def logout():
    flask.session.clear()
    return "", 204


@app.get("/url/<path:name>")
def url(name):
    return {
        "name": name,
        "args": flask.request.args.to_dict(flat=False),
        "url": flask.request.url,
        "remote": flask.request.remote_addr,
    }


@app.get("/broken")
def broken():
    raise RuntimeError("broken on purpose")


@app.get("/broken-stream")
def broken_stream():
    def lines():
        yield "line\n"
        raise RuntimeError("broken on purpose")

    return app.response_class(lines())


@app.errorhandler(404)
def not_found(error):
    return f"<h1>No {flask.request.path} here</h1>", 404
