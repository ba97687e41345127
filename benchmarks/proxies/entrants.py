"""Who is measured, and how each is started: with one thread, kept connections to the upstream, and no access log.

What a peer can be spared by its configuration it is spared; the gateway's own have everything on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.proxies import programs
from benchmarks.proxies.programs import Program


@dataclass(frozen=True)
class Entrant:
    """One line of the report. `%name` in *arguments* and in the file *configuration* is a value of the run.

    *values* are more of them, for this one alone, and may name those of the run. *files* is how many of those it may
    have open it counts for a connection. *is_encrypted* is whether it serves TLS.
    """

    label: str
    program: Program
    arguments: tuple[str, ...]
    configuration: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    logs_access: bool = False
    is_peer: bool = True
    files: int = 1
    is_encrypted: bool = False


NGINX, ENVOY_GUARDED, TRAEFIK_REDIS = "nginx", "Envoy, key check + local limit", "Traefik, Redis limit + in flight"
MEMORY, REDIS = "MachPay, memory", "MachPay, Redis"
MEMORY_INTERPRETED, REDIS_INTERPRETED = f"{MEMORY}, interpreted", f"{REDIS}, interpreted"

_NGINX = ("-e", "stderr", "-p", "%folder", "-c", "%folder/nginx.conf")
_ENVOY = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
_TRAEFIK = (
    "--entrypoints.web.address=127.0.0.1:%port",
    "--providers.file.filename=%folder/traefik_dynamic.yaml",
    "--log.level=ERROR",
    "--global.checknewversion=false",
    "--global.sendanonymoususage=false",
)
_REDIS = 'redis = "redis://%redis/0"'
_PEERS = "benchmarks.proxies.peers"


def _ours(label: str, program: Program, redis: str) -> Entrant:
    return Entrant(
        label,
        program,
        ("--config", "%folder/machpay.toml", "serve"),
        "machpay.toml",
        {"redis_setting": redis},
        logs_access=True,
        is_peer=False,
    )


UPSTREAM = Entrant(
    "the upstream, directly", programs.NGINX, ("-e", "stderr", "-p", "%folder", "-c", "upstream.conf"), "upstream.conf"
)
ENTRANTS = (
    # What everybody's figures are compared with is no peer to be left out.
    Entrant(NGINX, programs.NGINX, _NGINX, "nginx.conf", {"access_log": "off"}, is_peer=False),
    Entrant(
        "nginx, access log",
        programs.NGINX,
        _NGINX,
        "nginx.conf",
        {"access_log": "%folder/access.log"},
        logs_access=True,
    ),
    Entrant("HAProxy", programs.HAPROXY, ("-db", "-f", "%folder/haproxy.cfg"), "haproxy.cfg", files=2),
    Entrant("Envoy", programs.ENVOY, (*_ENVOY, "-c", "%folder/envoy.yaml"), "envoy.yaml"),
    Entrant(ENVOY_GUARDED, programs.ENVOY, (*_ENVOY, "-c", "%folder/envoy_guarded.yaml"), "envoy_guarded.yaml"),
    Entrant("Traefik", programs.TRAEFIK, _TRAEFIK, "traefik_dynamic.yaml", {"middlewares": "[]"}),
    Entrant(TRAEFIK_REDIS, programs.TRAEFIK, _TRAEFIK, "traefik_dynamic.yaml", {"middlewares": "[rate, flights]"}),
    Entrant("Caddy", programs.CADDY, ("run", "--adapter", "caddyfile", "--config", "%folder/Caddyfile"), "Caddyfile"),
    Entrant("aiohttp", programs.AIOHTTP, ("-m", "benchmarks.proxies.aiohttp_peer", "%port")),
    Entrant("asgiproxy", programs.ASGIPROXY, ("-m", "benchmarks.server", f"{_PEERS}:asgiproxy_app", "%port")),
    Entrant(
        "fastapi-proxy-lib",
        programs.FASTAPI_PROXY_LIB,
        ("-m", "benchmarks.server", f"{_PEERS}:fastapi_proxy_lib_app", "%port"),
    ),
    _ours(MEMORY, programs.MACHPAY, ""),
    _ours(REDIS, programs.MACHPAY, _REDIS),
    _ours(MEMORY_INTERPRETED, programs.MACHPAY_INTERPRETED, ""),
    _ours(REDIS_INTERPRETED, programs.MACHPAY_INTERPRETED, _REDIS),
)


def _encrypted(label: str, program: Program, arguments: tuple[str, ...], configuration: str = "") -> Entrant:
    return Entrant(label, program, arguments, configuration, is_encrypted=True)


_CADDY_TLS = ("run", "--adapter", "caddyfile", "--config", "%folder/Caddyfile_tls")
_HYPERCORN = (
    *("-m", "hypercorn", "benchmarks.bare:raw", "--bind", "127.0.0.1:%port", "--workers", "1"),
    *("--certfile", "%certificate", "--keyfile", "%key", "--worker-class", "uvloop", "--log-level", "critical"),
)
# Over TLS, with HTTP/1.1 or HTTP/2 as the load asks for. Hypercorn is no proxy: it serves the application itself.
ENCRYPTED_ENTRANTS = (
    _encrypted(
        NGINX, programs.NGINX, ("-e", "stderr", "-p", "%folder", "-c", "%folder/nginx_tls.conf"), "nginx_tls.conf"
    ),
    _encrypted("Envoy", programs.ENVOY, (*_ENVOY, "-c", "%folder/envoy_tls.yaml"), "envoy_tls.yaml"),
    _encrypted("Caddy", programs.CADDY, _CADDY_TLS, "Caddyfile_tls"),
    _encrypted("Hypercorn, the application alone", programs.HYPERCORN, _HYPERCORN),
    *(
        _encrypted(label, program, ("--config", "%folder/machpay_tls.toml", "serve"), "machpay_tls.toml")
        for label, program in ((MEMORY, programs.MACHPAY), (MEMORY_INTERPRETED, programs.MACHPAY_INTERPRETED))
    ),
)
