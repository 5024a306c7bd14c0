"""Authentication of the orchestrator's requests and of sessions.

Imported by `provider.api` and `provider.sessions`.
"""
