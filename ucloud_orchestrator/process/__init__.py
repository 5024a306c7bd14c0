"""The parts of any process of ours: settings, logging, health checks, HTTP, shutdown, migrations.

Every package but `models` may import it. It imports nothing of ours.
"""
