"""Addresses of key sets: files, and unambiguous URLs."""

import re

from machpay_gateway.core.network.address import is_loopback

_USER_INFO = re.compile(r"//[^/@]*@")


# Unambiguous URLs only: no user and password, backslash, space or fragment in which a parser could see another host.
_KEY_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?][!-\"$-\[\]-~]*)?"
)


_MAX_URL_LENGTH = 2048


_MAX_PORT = 65535


def is_remote(source: str) -> bool:
    """Tell whether *source* is a URL, not a file."""
    return "://" in source


def is_trusted_url(url: str) -> bool:
    """Tell whether keys may be fetched from *url*: an unambiguous https URL, or http on loopback."""
    match = _KEY_URL.fullmatch(url)
    if match is None or len(url) > _MAX_URL_LENGTH or int(match["port"] or 0) > _MAX_PORT:
        return False
    return match["scheme"] == "https" or is_loopback(match["host"].strip("[]"))


def without_user(url: str) -> str:
    """Return *url* for messages: without user and password."""
    return _USER_INFO.sub("//…@", url)
