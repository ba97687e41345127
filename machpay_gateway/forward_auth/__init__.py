"""Forward-auth: another proxy forwards requests itself, and sends a check request to the gateway for each.

The path of a check request, in reading order:

1. `dialect` is the table of proxies: at which path each sends check requests, how, and which responses it passes on.
2. `check_request` parses the facts of the client's request from it.
3. `front` calls the gate as the middleware does, and responds: with identity headers for the proxy's upstream, or with
   the refusal for its client.
4. `leases` holds concurrency slots for a fixed time, since the gateway does not see the end of the request.
"""
