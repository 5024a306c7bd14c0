"""Who calls: the signed requests of the orchestrator, and the tokens of sessions.

Imported by `provider.api` and `provider.sessions`.
"""
