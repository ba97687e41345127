"""Other proxies in front of an upstream, to compare what they forward."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.forward_auth.proxies import KINDS
from tests.redises.ports import HOST, free_port
from tests.redises.waiting import wait_until

_NGINX = """
events {{}}
http {{
    access_log off;
    client_body_temp_path t_body; proxy_temp_path t_proxy;
    server {{
        listen {host}:{port};
        location / {{ proxy_pass http://{host}:{upstream}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""
_ENVOY = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: {host}, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: paths
          route_config:
            virtual_hosts:
            - {{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: upstream }} }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: upstream
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {upstream} }} }} }}
"""
_CONFIGURATIONS = {"nginx": ("nginx.conf", _NGINX), "envoy": ("envoy.yaml", _ENVOY)}


@contextmanager
def running(kind: str, folder: Path, upstream: int) -> Iterator[int]:
    """Run the proxy *kind* as it is without settings, in *folder*, before the *upstream* at a port; yield its port."""
    binary = KINDS[kind].binary()
    assert binary is not None
    name, text = _CONFIGURATIONS[kind]
    port = free_port()
    (folder / name).write_text(text.format(host=HOST, port=port, upstream=upstream))
    options = {
        "nginx": ["-p", ".", "-c", name, "-e", "stderr", "-g", "daemon off; master_process off; pid pid;"],
        "envoy": ["-c", name, "--concurrency", "1", "--disable-hot-restart", "-l", "off"],
    }
    process = subprocess.Popen([binary, *options[kind]], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), seconds=20, claim=f"{kind} listens")
        yield port
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
