"""All that can be set: read once at start from `machpay.toml`, the environment and Python, and checked as a whole.

A mistake stops the start. It names where the value came from, the value, and the way out; it never becomes a literal.
"""

from machpay_gateway.settings.model import Options, Settings
from machpay_gateway.settings.sources import check_file, load_settings

__all__ = ["Options", "Settings", "check_file", "load_settings"]
