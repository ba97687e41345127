"""A package, so that its modules share one browser, which is gone before any other test.

Of a name of its own: pytest would take the `conftest` of two packages of one name for the same.
"""
