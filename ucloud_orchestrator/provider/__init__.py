"""A real provider for one machine: the provider protocol over HTTP, jobs through PSI/J, each
replica in a sandbox.
"""
