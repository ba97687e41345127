"""Forward-auth: a proxy that carries requests itself asks whether it may.

The path of a question, in the order to read it:

1. `dialect` says whose question comes at a path: how that proxy puts it, and which answers it can pass on.
2. `question` reads from it the facts of the client's request, as far as the proxy may speak for its clients.
3. `front` asks the gate as the middleware does, and answers: who is calling for the proxy to tell its upstream, or the
   refusal for it to pass on.
4. `leases` has the slots: the end of a request is not seen here.
"""
