"""The files of drives and of jobs: mounts, output, copies and deletion.

Imported by `provider.jobs`, `provider.sandbox` and `provider.executors`.
"""
