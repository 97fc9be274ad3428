"""Attributes of a package that are imported on first use.

``import lska_jax`` and the check of a config then cost milliseconds, and neither jax nor flax is
loaded before something needs it.
"""

import importlib
from collections.abc import Callable, Mapping


def lazy_attributes(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], object], list[str]]:
    """Return ``__getattr__`` and ``__all__`` for a package (PEP 562).

    Args:
      package: the package's ``__name__``.
      modules: public name -> module that defines it; a name that ends its module is the module.
    """

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(modules[name])
        return module if modules[name] == f"{package}.{name}" else getattr(module, name)

    return get, sorted(modules)
