"""What pyproject.toml cannot say: conf/ lies beside the packages here and inside `roadmap` in a wheel."""

from setuptools import find_namespace_packages, setup

PACKAGES = ["roadmap*", "experiments*", "analysis*", "hydra_plugins*"]
CONF = "roadmap.conf"

setup(
    packages=[
        *find_namespace_packages(include=PACKAGES),
        *(CONF, *(f"{CONF}.{group}" for group in find_namespace_packages("conf"))),
    ],
    package_dir={CONF: "conf"},
    py_modules=["convnext_roadmap"],
)
