"""The commands of `python -m experiments`, a module each with `add_arguments(parser)` and `run(options)`."""
