"""Who carries out runs: worker processes on this machine, or a SLURM queue."""
