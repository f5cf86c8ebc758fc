"""One run: `run.run(settings)` reads top to bottom, everything else is called from there."""
