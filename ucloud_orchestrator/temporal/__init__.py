"""Temporal itself: connection, names, queries, search attributes, encryption and traces.

Every package but `models`, `process`, `catalog` and `store` may import it; it imports `models` and
`process` only.
"""
