"""Fault injection: real processes, many jobs, faults of every kind, and a check of all promises."""
