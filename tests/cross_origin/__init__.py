"""A package, so that its modules share one browser, which is gone before any other test."""
