"""HTTP/2 from callers: `connection` has the streams, and `stream` is a request, which a `Forwarder` serves as any."""
