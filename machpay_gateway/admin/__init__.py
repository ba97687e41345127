"""The key API: what programs and people do with keys and apps over HTTP, guarded by MachPayAuth as any application is.

`operations` is its one table: routing, the policy that guards it and the OpenAPI document are read off it. An operation
gets a `Call`, asks the keyring, and returns a response; whatever else there is to say, it raises as a `ProblemError`.
"""
