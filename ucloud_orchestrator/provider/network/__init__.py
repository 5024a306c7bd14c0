"""The network namespaces of replicas, and how their ports are reached.

Imported by `provider.jobs`, `provider.sessions` and `provider.api`.
"""
