"""The files of drives and of jobs: mounts, and the collection of output.

Imported by `provider.jobs`, `provider.sandbox` and `provider.executors`.
"""
