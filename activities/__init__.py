"""The activities of the workflows and of the clients: one module for each counterpart or subject.

They act; no decision about the lifecycle is made here. Only `workflows` (for their signatures) and
`worker.py` import this package.
"""
