"""The reconciler: brings what runs in line with what the job database says, and reports.

Imported by `provider.api`.
"""
