"""The sandbox of a replica: how its processes are confined, launched and entered.

Imported by `provider.jobs` and `provider.executors`.
"""
