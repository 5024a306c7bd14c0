"""What runs the replicas of a job: processes of this machine, or a Slurm cluster.

They observe and act, decide nothing, and know nothing of each other. Imported by `provider.jobs`.
"""
