"""The client and its resources. `_sync` is generated from these files by generate.py."""
