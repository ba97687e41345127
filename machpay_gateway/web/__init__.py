"""ASGI adapters: from a scope to request facts, from decisions to messages. Opens no sockets."""
