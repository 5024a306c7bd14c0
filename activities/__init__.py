"""What the workflow has done for it: one file for each counterpart.

No decisions about the lifecycle.
"""
