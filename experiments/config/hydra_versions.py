"""Hydra 1.3 needs words of which 1.4 warns on every start, on a line that says nothing to a user: they are dropped here.

Hydra 1.5 will refuse them, which is why `pyproject.toml` ends below it.
"""

import warnings

VERSION_BASE = "1.3"  # how Hydra behaves; 1.3 asks for it

warnings.filterwarnings("ignore", r"The version_base parameter is deprecated")
warnings.filterwarnings("ignore", r"register_new_resolver\(\) is deprecated")  # launchers' plugins call it as well
