"""Terminals, web applications, desktops and logs, for browsers and clients.

Imported by `provider.api`.
"""
