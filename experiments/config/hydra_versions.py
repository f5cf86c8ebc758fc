"""Hydra 1.3 needs words of which 1.4 warns on every start, in lines that say nothing to a user: they are dropped here.

Hydra 1.5 will refuse them, which is why `pyproject.toml` ends below it.
"""

import warnings

VERSION_BASE = "1.3"  # how Hydra behaves; 1.3 asks for it


def hush() -> None:
    """Drop the warnings; those of `register_new_resolver` come from launchers' plugins as well."""
    for what in (r"The version_base parameter is deprecated", r"register_new_resolver\(\) is deprecated"):
        warnings.filterwarnings("ignore", what)


hush()  # before hydra.main is called, on import
