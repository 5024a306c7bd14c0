"""The reconciler, its database, and the delivery of reports.

The decisions are one table in `decisions.py`.

Imported by `provider.api`.
"""
