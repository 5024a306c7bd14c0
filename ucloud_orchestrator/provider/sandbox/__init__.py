"""The sandbox of a replica: its confinement, the launcher of its command, and exec.

Imported by `provider.jobs` and `provider.executors`.
"""
