"""The gateway as a group of processes: `supervisor` keeps workers running, and each `worker` is a whole gateway.

In a worker the proxy listens for callers, uvicorn serves the control plane behind it on a private socket, and
`management` serves health checks and metrics on an address of its own.
"""

from machpay_gateway.extras import require_extra

require_extra("proxy", "`machpay-gateway serve`")
