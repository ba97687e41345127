"""The synchronous client. Every file here is generated from `_async` by generate.py: edit it there."""
