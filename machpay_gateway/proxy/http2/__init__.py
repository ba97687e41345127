"""HTTP/2 (RFC 9113), framed by the h2 library: what both sides share, and connections to upstreams.

`fields` turns header blocks into heads of HTTP/1.1 and back, so that the same rules read them. `bounds` limits what
costs the gateway work and its client nothing. `upstreams` is a connection to a server, whose streams are used like
connections of HTTP/1.1.
"""
