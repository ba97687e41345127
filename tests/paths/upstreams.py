"""Servers that read paths each in its own way. Each answers with the name of the handler that has run."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.forward_auth.proxies import KINDS
from tests.node import NODE, inherited
from tests.paths.handlers import HANDLERS
from tests.redises.ports import HOST, free_port
from tests.redises.waiting import wait_until

_NGINX = """
events {{}}
http {{
    access_log off;
    client_body_temp_path t_body; proxy_temp_path t_proxy;
    default_type text/plain;
    server {{ listen {host}:{port}; root files; location / {{ try_files $uri $uri/index.html =404; }} }}
}}
"""


@contextmanager
def serving_node(root: Path, kind: str) -> Iterator[int]:
    """Serve by the Node.js framework *kind*, whose packages are in *root*; yield the port."""
    process = subprocess.Popen(
        [NODE, "server.js", kind], cwd=root, env=inherited(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    handlers = [{"name": each.name, "template": _for_node(each.template)} for each in HANDLERS]
    try:
        process.stdin.write(json.dumps(handlers) + "\n")
        process.stdin.flush()
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@contextmanager
def serving_flask() -> Iterator[int]:
    """Serve by Flask; yield the port."""
    app = Flask("paths")
    for each in HANDLERS:
        app.add_url_rule(_for_flask(each.template), each.name, _answering(each.name))

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            """Write nothing."""

    server = make_server(HOST, 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving_files(folder: Path, kind: str) -> Iterator[int]:
    """Serve the samples as files by nginx, in *folder*; yield the port."""
    binary = KINDS[kind].binary()
    assert binary is not None
    port = free_port()
    for each in HANDLERS:
        file = folder / "files" / each.sample.strip("/")
        file = file / "index.html" if any(_is_below(other.sample, each.sample) for other in HANDLERS) else file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(each.name)
    (folder / "nginx.conf").write_text(_NGINX.format(host=HOST, port=port))
    process = subprocess.Popen(
        [binary, "-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off; master_process off; pid pid;"],
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _listens(port), seconds=10, claim="nginx listens")
        yield port
    finally:
        process.kill()
        process.wait()


def _answering(name: str) -> Callable[..., Response]:
    def answer(**_: str) -> Response:
        return Response(name)

    return answer


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _for_node(template: str) -> str:
    return template.replace("{id}", ":id").replace("{rest:path}", "*rest")


def _for_flask(template: str) -> str:
    return template.replace("{id}", "<id>").replace("{rest:path}", "<path:rest>")


def _is_below(path: str, other: str) -> bool:
    return path != other and path.startswith(f"{other}/")
