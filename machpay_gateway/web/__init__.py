"""HTTP as ASGI carries it: from a scope to facts, from decisions to messages. Opens no sockets."""
