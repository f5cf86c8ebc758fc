"""The process that a run lives in: device, ranks, signals, imports."""
