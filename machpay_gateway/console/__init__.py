"""The Console: web pages on which an account's users manage its API keys and apps, and see usage and the audit log.

`app` has the table of pages. Every request passes the `Guard`. A page is a handler of a `PageRequest`, in the module of
its subject, and calls the services that the key API and the command line also use.
"""

from machpay_gateway.extras import require_extra

require_extra("console", "The Console")
