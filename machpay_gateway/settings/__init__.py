"""The settings: loaded once at start from `machpay.toml`, the environment and Python, and validated as a whole.

A mistake stops the start. Its message names the source, the value and the way out.
"""

from machpay_gateway.settings.model import MEMORY_DATABASE, Options, Settings
from machpay_gateway.settings.sources import check_file, load_settings

__all__ = ["MEMORY_DATABASE", "Options", "Settings", "check_file", "load_settings"]
