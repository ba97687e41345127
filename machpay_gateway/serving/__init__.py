"""The gateway as a group of processes: `supervisor` keeps workers running, each `worker` is a whole gateway.

In a worker the proxy listens for callers, the control plane is served by uvicorn behind it on a private socket, and
`management` answers operators on an address of its own.
"""
