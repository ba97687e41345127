"""The authorization server that `benchmarks.oauth` puts load on."""

from benchmarks.oauth import oauth as _oauth

oauth = _oauth()
