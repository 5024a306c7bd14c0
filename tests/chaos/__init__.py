"""A stack of real processes with many jobs, faults of every kind, and a look at the world
afterwards.
"""
