"""People: users of accounts, and how they sign in."""

from machpay_gateway.people.passwords import Passwords
from machpay_gateway.people.users import Users, random_password

__all__ = ["Passwords", "Users", "random_password"]
