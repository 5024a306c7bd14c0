"""Everything about Temporal itself: connection, names, search attributes, encryption, tracing.

Imports `models` and `process`; every room but these two, `catalog` and `store` may import it.
"""
