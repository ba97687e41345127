"""The reverse proxy: HTTP/1.1 on both sides, below ASGI, which cannot express what a proxy needs.

The path of a request, in reading order:

1. `connection` parses a client's bytes into requests, with `readers`: `framing` refuses what allows request smuggling
   before any of it is forwarded, `heads` and `target` are the parsed values, and `header_fields` has the rules for
   hop-by-hop, forwarding and identity headers.
2. `forwarding` is one request, a state machine: it calls the gate as the middleware does, refuses with `responses`, or
   forwards `upstream_request` and the response, both with `bodies` framed again.
3. `route_plan` says where a route's requests go and what is changed of them. `routing` has all upstreams, `pool`
   chooses a server and an idle connection, `upstream` is that connection.
4. An upgraded connection goes on as bytes in `tunnel`.

`downstream` is what a request needs of its client: `connection` for HTTP/1.1, `http2_callers` for a stream of HTTP/2.
`context` is what all connections share, `proxy` their timeouts and the graceful shutdown, and `eviction` the choice of
a connection to close when there are too many. `http2_server` and `http2` are for upstreams of HTTP/2.
"""

from machpay_gateway.extras import require_extra

require_extra("proxy", "The proxy")
