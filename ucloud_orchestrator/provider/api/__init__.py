"""The HTTP API that the orchestrator calls, and the metrics and health of the process.

Imported by `provider.__main__` only.
"""
