"""The tables of this version; `migrations` upgrades databases of older ones.

Times are seconds since the epoch and collections are JSON text, so that SQLite and PostgreSQL store the same values.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
)

REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
)  # oldest first; listed here so that a start can compare without importing Alembic
HEAD = REVISIONS[-1]
# The head of the release before. Its programs can use this schema, and this program can use its schema: migrations
# after it only add what those programs neither need nor notice. Set it at a release; CONTRIBUTING has the rule.
PREVIOUS = "0012"

# A constraint without a name cannot be dropped by a migration that runs on both databases.
METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row: the schema's revision, and the oldest revision whose programs can use it. alembic_version has one of the two:
# in an upgraded database the oldest, because programs before this table start only if it is their own revision.
SCHEMA_VERSION = Table(
    "schema_version",
    METADATA,
    Column("revision", Text, primary_key=True),
    Column("oldest", Text, nullable=False),
)

ACCOUNTS = Table(
    "accounts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("name"),
)

KEYS = Table(
    "keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("allowed_ips", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_rotated_at", Double),
    Column("owner", Text),
    Column("own_tier", Text),  # else the account's
    Index(None, "account_id", "created_at", "id"),  # an account's keys, newest first
    Index(None, "created_at", "id"),  # all keys, for operators
    Index(None, "changed_at"),  # recent changes
)

KEY_SECRETS = Table(
    "key_secrets",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("key_id", Text, ForeignKey("keys.id"), nullable=False),
    Column("position", Integer, nullable=False),  # 0 = current, 1 = previous
    Column("masked", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    UniqueConstraint("key_id", "position"),
)

AUDIT_LOG = Table(
    "audit_log",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("address", Text),
    Column("request_id", Text),
    Column("action", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Index(None, "account_id", "sequence"),  # an account's changes, newest first
    Index(None, "object_id", "sequence"),  # one object's
)

# One row: the end of the log. It is locked before a row is appended.
AUDIT_HEAD = Table(
    "audit_head",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)

KEPT_ANSWERS = Table(
    "kept_answers",
    METADATA,
    Column("name", LargeBinary, primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "at"),  # to delete old ones
)

LATENCIES = 14  # counts in a histogram


def _usage_table(name: str) -> Table:
    return Table(
        name,
        METADATA,
        Column("subject", Text, primary_key=True),
        Column("start", BigInteger, primary_key=True, autoincrement=False),
        Column("route", Text, primary_key=True),
        Column("outcome", Text, primary_key=True),
        Column("status", Integer, primary_key=True, autoincrement=False),
        Column("seconds", Double, nullable=False),
        # A column for each count of the histogram, so that a batch is added by SQL.
        *(Column(f"latency_{number:02}", BigInteger, nullable=False) for number in range(LATENCIES)),
        Index(None, "start"),  # to delete old ones
    )


USAGE_MINUTES, USAGE_HOURS, USAGE_DAYS = map(_usage_table, ("usage_minutes", "usage_hours", "usage_days"))

QUOTA_UNITS = Table(
    "quota_units",
    METADATA,
    Column("subject", Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # since the epoch
    Column("units", BigInteger, nullable=False),
    Index(None, "day"),  # to delete old ones
)

# One row, with the number of the newest batch of quota units.
QUOTA_BATCHES = Table(
    "quota_batches",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)

# Not a column of key_secrets: a use must not update the rows that a rotation rewrites, and outlives the secret.
SECRET_USES = Table(
    "secret_uses",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("last_used_at", Double, nullable=False),
    Index(None, "key_id", "last_used_at"),  # a key's latest
)

SIGNING_KEYS = Table(
    "signing_keys",
    METADATA,
    Column("kid", Text, primary_key=True),
    Column("public", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("signs_from", Double, nullable=False),
)

USERS = Table(
    "users",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("email", Text, nullable=False),
    Column("password", Text),
    Column("created_at", Double, nullable=False),
    Column("disabled_at", Double),
    Column("role", Text, nullable=False, server_default="viewer"),
    Column("devices_from", Double),
    UniqueConstraint("email"),
    Index(None, "account_id"),
)

SIGN_INS = Table(
    "sign_ins",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("address", Text),
    Column("seen_at", Double),
    Column("confirmed_at", Double),
    Index(None, "user_id"),
    Index(None, "expires_at"),  # to delete expired ones
)

FAMILIAR_BLOCKS = Table(
    "familiar_blocks",
    METADATA,
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("block", Text, primary_key=True),
    Column("seen_at", Double, nullable=False),
)

OAUTH_CLIENTS = Table(
    "oauth_clients",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("redirect_uris", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("grant_types", Text, nullable=False),
    Column("is_public", Boolean, nullable=False),
    Column("requires_pkce", Boolean, nullable=False),
    Column("binds_tokens", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("deleted_at", Double),
    Column("is_self_registered", Boolean, nullable=False, server_default=false()),
    Index(None, "account_id", "created_at", "id"),
    Index(None, "is_self_registered", "created_at"),  # to count them, and to find the unused ones
)

OAUTH_CLIENT_SECRETS = Table(
    "oauth_client_secrets",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("client_id", Text, ForeignKey("oauth_clients.id"), nullable=False),
    Column("position", Integer, nullable=False),  # 0 = current, 1 = previous
    Column("masked", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    UniqueConstraint("client_id", "position"),
)

OAUTH_GRANTS = Table(
    "oauth_grants",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("client_id", Text, ForeignKey("oauth_clients.id"), nullable=False),
    Column("holder_id", Text, nullable=False),  # the user, or the client itself
    Column("user_id", Text, ForeignKey("users.id")),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("valid_from", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("revoked_at", Double),
    UniqueConstraint("client_id", "holder_id"),
    Index(None, "user_id"),
    Index(None, "account_id", "created_at", "id"),
    Index(None, "changed_at"),  # recent changes
)

TOKEN_FAMILIES = Table(
    "token_families",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("grant_id", Text, ForeignKey("oauth_grants.id"), nullable=False),
    Column("client_id", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("resources", Text, nullable=False),
    Column("key", Text),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("ended_at", Double),
    Index(None, "grant_id", "ended_at"),
    Index(None, "expires_at"),  # to delete old ones
)

AUTHORIZATION_CODES = Table(
    "authorization_codes",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("family_id", Text, nullable=False),
    Column("grant_id", Text, ForeignKey("oauth_grants.id"), nullable=False),
    Column("client_id", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("has_redirect", Boolean, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("resources", Text, nullable=False),
    Column("challenge", Text),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
    Index(None, "expires_at"),  # to delete old ones
)

REFRESH_TOKENS = Table(
    "refresh_tokens",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("family_id", Text, ForeignKey("token_families.id"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("predecessor", LargeBinary),  # the digest of the token that it replaced, which is thereby used
    Column("seed", LargeBinary),  # from which it is derived, with the predecessor
    UniqueConstraint("predecessor"),
    Index(None, "family_id"),
)
