"""The reverse proxy: HTTP/1.1 on both sides, below ASGI, which cannot say what a proxy must.

The path of a request, in the order to read it:

1. `downstream` cuts the bytes of a client's connection into requests, whose heads `readers` reads: `framing` refuses
   what could be read in two ways before anything of it goes on, `heads` and `target` are what was read, and `fields`
   says which header fields are ours to manage.
2. `exchange` is one request: it asks the gate as the middleware does, and refuses by `answers`.
3. `carrying` takes what was allowed to its upstream: `forwarding` has what is said of it there, `pool` picks a server,
   `upstream` is the connection to it, and `bodies` re-makes the framing both ways.
4. An upgraded connection goes on as bytes in `tunnel`.

`proxy` is what all connections share; `ports` is what each part asks of those above it.
"""
