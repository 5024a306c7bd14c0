"""Fault injection: a stack of real processes with many jobs, faults of every kind, and a check of
the invariants afterwards.
"""
