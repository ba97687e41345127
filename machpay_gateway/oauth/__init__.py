"""The authorization server over HTTP: pages for users, endpoints for apps."""
