"""An audio child: hostile bytes in, samples out, in a process that can do nothing else."""
