"""Jobs on a Slurm cluster, by its command line. Imported by `provider.jobs.reconciler` only."""
