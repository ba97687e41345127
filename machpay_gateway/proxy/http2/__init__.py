"""HTTP/2 (RFC 9113), framed by the h2 library.

`callers` is a connection of callers and `stream` one request in it, which a `Forwarder` serves as it does any other:
`fields` turns its header block into the head of an HTTP/1.1 message, so that the same rules read it, and the response's
head back. `bounds` limits what costs the gateway work and its client nothing.
"""
