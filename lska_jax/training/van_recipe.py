"""The paper's recipe for VAN and LSKA, as the config files of the family begin."""

import re

from ml_collections import ConfigDict

from lska_jax.ops.kernel_spec import DEFAULT_KERNEL_SIZE
from lska_jax.training.config import base_config, model_section


def parse_argument(argument: str | None) -> dict[str, int | bool]:
    """Read a config's argument, as in ``configs/van_lska_base.py:35,trivial``.

    Args:
      argument: what stands behind the colon: k, "trivial", or both with a comma; None or "" is
        nothing.

    Returns:
      {"k": int, "is_trivial": bool}.

    Raises:
      ValueError: a part is neither a number nor "trivial".
    """
    parsed: dict[str, int | bool] = {"k": DEFAULT_KERNEL_SIZE, "is_trivial": False}
    for part in (argument or "").split(","):
        word = part.strip()
        if word == "trivial":
            parsed["is_trivial"] = True
        elif re.fullmatch(r"(k=)?\d+", word):
            parsed["k"] = int(word.removeprefix("k="))
        elif word:
            raise ValueError(
                f"Config argument {argument!r}: {word!r} is not understood; allowed: a kernel "
                "size, trivial, or both, as in configs/van_lska_base.py:35,trivial."
            )
    return parsed


def imagenet_config(attention: str, size: str, argument: str | None) -> ConfigDict:
    """Return the paper's recipe for one VAN, with k and the trivial form from the argument.

    Args:
      attention: "lska" or "lka".
      size: key of ``lska_jax.models.van_config.SIZES``.
      argument: see ``parse_argument``.
    """
    parsed = parse_argument(argument)
    form = f"{attention}_trivial" if parsed["is_trivial"] else attention
    config = base_config()
    config.model = model_section(f"van_{form}_{size}", k=parsed["k"], drop_path_rate=0.1)
    return config
