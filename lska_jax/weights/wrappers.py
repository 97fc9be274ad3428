"""What training code puts around a network's names: prefixes, counters, other networks beside it.

Data parallelism, compiling and averaging put a prefix on every name, detectors and losses have a
network under one name beside others. The prefix is found by the names behind it: those that the
tables of ``names`` know.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lska_jax.weights.names.naming import Names
from lska_jax.weights.names.recognition import best_table, full_names, is_known

# Of torch.optim.swa_utils.AveragedModel: how many models were averaged.
AVERAGED_COUNTER = "n_averaged"
# Left inside names by wrapping parts of a network.
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# The classifier beside a backbone, as classification frameworks name it.
_HEADS = {"head.fc.weight": "head.weight", "head.fc.bias": "head.bias"}
_AVERAGED_WORDS = ("ema", "swa", "averaged")
_MAX_PREFIX_WORDS = 6


class Unwrapped(NamedTuple):
    """The names of one network in a checkpoint.

    Attributes:
      names: {name as the tables have it: name in the file}.
      beside: the same of what stands beside the network, without what stands in front of both.
      notes: what they are, one sentence each.
      left_out: a sentence about what is beside; "" if there is nothing.
      is_averaged: whether the network is an average of several.
    """

    names: dict[str, str]
    beside: dict[str, str]
    notes: list[str]
    left_out: str
    is_averaged: bool


def unwrap(names: Sequence[str], path: Path, *, use_average: bool = False) -> Unwrapped:
    """Return the names of the network that a checkpoint's names speak of.

    Args:
      names: in the file.
      path: the file, for errors.
      use_average: take the averaged network where it stands beside the trained one.

    Raises:
      ValueError: several networks, or one with some names with and others without its prefix.
    """
    plain = _without_inside(names, path)
    counts = _count_prefixes(plain)
    prefix, is_chosen_average = _choose_prefix(counts, plain, path, use_average=use_average)
    counters = [name for name in plain if name.split(".")[-1] == AVERAGED_COUNTER]
    others = [name for name in plain if name not in counters]
    of_network = [name for name in others if name.startswith(prefix)]
    full = full_names([name.removeprefix(prefix) for name in of_network])
    kept = {name: plain[old] for name, old in zip(full, of_network, strict=True)}
    table, aside = best_table(kept), list(counters)
    for name in others:
        if name.startswith(prefix):
            continue
        whole = _of_network(name, prefix, table)
        if not whole:
            aside.append(name)
        elif whole in kept:
            raise ValueError(
                f"{path} has a network's weights with {prefix!r} in front and others without: "
                f"{name}, beside {kept[whole]}."
            )
        else:
            kept[whole] = plain[name]
    is_averaged = is_chosen_average or bool(counters)
    outer = prefix.removesuffix(".").rpartition(".")[0]
    outer = f"{outer}." if outer else ""
    beside = {
        n.removeprefix(outer): plain[n] for n in aside[len(counters) :] if n.startswith(outer)
    }
    notes = ["These are averaged weights."] if is_averaged else []
    return Unwrapped(kept, beside, notes, _left_out(prefix, aside), is_averaged)


def _without_inside(names: Iterable[str], path: Path) -> dict[str, str]:
    plain: dict[str, str] = {}
    for name in names:
        short = name
        for wrapper in _INSIDE:
            short = short.replace(wrapper, "")
        if short in plain:
            raise ValueError(f"{path} gives {short} twice: as {plain[short]} and as {name}.")
        plain[short] = name
    return plain


def _count_prefixes(names: Iterable[str]) -> Counter[str]:
    """Count for each prefix the names that mean something without it."""
    counts: Counter[str] = Counter({"": 0})
    known: dict[str, bool] = {}
    for name in names:
        words = name.split(".")
        for cut in range(min(len(words), _MAX_PREFIX_WORDS)):
            rest = ".".join(words[cut:])
            if rest not in known:
                known[rest] = is_known(rest)
            if known[rest]:
                counts["".join(f"{word}." for word in words[:cut])] += 1
    return counts


def _choose_prefix(
    counts: Counter[str], names: Iterable[str], path: Path, *, use_average: bool
) -> tuple[str, bool]:
    """Return the prefix of the network, and whether its name says that it is an average."""
    # Of equals the shortest: a whole name may be known with and without its first word.
    ordered = sorted(counts, key=lambda prefix: (-counts[prefix], len(prefix)))
    best = ordered[0]
    below = sum(name.startswith(best) for name in names)
    if best and 2 * counts[best] < below:
        return "", False
    rivals = [
        prefix
        for prefix in ordered[1:]
        if 2 * counts[prefix] >= counts[best] > 0
        and not any(one.startswith(other) for one, other in ((prefix, best), (best, prefix)))
    ]
    networks = _outermost([best, *rivals])
    averaged = [prefix for prefix in networks if _says_average(prefix)]
    trained = [prefix for prefix in networks if prefix not in averaged]
    choice = averaged if averaged and (use_average or not trained) else trained
    if len(choice) > 1:
        raise ValueError(
            f"{path} holds {len(choice)} networks, under {', '.join(choice)}. Save the one that is "
            "meant in a file of its own."
        )
    return choice[0], choice[0] in averaged


def _outermost(prefixes: Sequence[str]) -> list[str]:
    """Return prefixes that do not begin with another of them."""
    return [
        prefix
        for prefix in prefixes
        if not any(prefix != other and prefix.startswith(other) for other in prefixes)
    ]


def _says_average(prefix: str) -> bool:
    words = {word for part in prefix.split(".") for word in part.lower().split("_")}
    return not words.isdisjoint(_AVERAGED_WORDS)


def _of_network(name: str, prefix: str, table: Names) -> str:
    """Return what a name beside the prefix stands for in the network behind it, or ""."""
    words = prefix.split(".")[:-1]
    for count in range(len(words)):
        outer = "".join(f"{word}." for word in words[:count])
        short = name.removeprefix(outer)
        for candidate in (table.full_name(short), _HEADS.get(short, "")):
            if name.startswith(outer) and table.read(candidate):
                return candidate
    return ""


def _left_out(prefix: str, aside: Sequence[str]) -> str:
    if not aside:
        return ""
    parts = Counter(name.split(".")[0] for name in aside)
    listed = ", ".join(f"{part} ({count})" for part, count in parts.items())
    what = f"the {prefix.split('.')[-2]}" if prefix else "the network"
    return f"Took {what}; not read beside it: {listed} arrays."
