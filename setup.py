"""The packages of a wheel: the library, and the config files under its name; see pyproject.toml."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["lska_jax*"]), "lska_jax.configs"],
    # Beside the library, where people read them; inside it, where an installed library finds them.
    package_dir={"lska_jax.configs": "configs"},
)
