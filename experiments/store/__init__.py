"""What lies on disk and survives a kill: atomic files, checkpoints, a run's directory, its lock, its sealed record."""
