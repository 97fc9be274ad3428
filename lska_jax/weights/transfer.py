"""Carry a VAN's weights over to another kernel size, or from LKA to LSKA.

A warm start for fine-tuning (``--config.training.finetune_from=DIR``), with a table of how much of
each kernel survives. Everything but the large kernels stays as it is.

- Another k of the same dilation: outer taps are added as zeros, which changes nothing, or cut off.
- Another dilation: the new cascade is fitted to the old effective kernel by least squares.
- LKA to LSKA: each 2-D kernel becomes its best rank-1 approximation.

What survives is 1 - |old - new|^2 / |old|^2 of the effective kernel, and of each kernel where it
has a counterpart. The last bias takes up what the constant part of the gate would have lost.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from lska_jax.models.build import array_shapes
from lska_jax.models.table import family_of, load_capability
from lska_jax.models.van_config import PER_STAGE, Gate, VANConfig, gates_of
from lska_jax.ops.kernel_spec import KernelSpec, kernel_spec
from lska_jax.weights.kernel_fit import best_rank_1, effective_kernel, fit_cascade, resize_centred
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import check_can_write, read_model_folder, write_model_folder
from lska_jax.weights.pretrained import arrays_of, build_from_arrays

_GATE = re.compile(
    r"(stages/(?P<stage>\d+)/blocks/\d+)/attention/gate/depthwise/(?P<step>\d+)/(?P<leaf>kernel|bias)"
)
_SEPARATED = {"lka": "lska", "lka_trivial": "lska_trivial"}


class KernelSurvival(NamedTuple):
    """How much of one block's large kernel survives, as fractions of energy.

    Attributes:
      block: path of the block.
      steps: of the local and the dilated kernel (of the only one, in a trivial form); None where
        the kernel was fitted anew.
      effective: of the whole effective kernel.
      lowest_channel: of the effective kernel of the channel that keeps least.
    """

    block: str
    steps: tuple[float | None, ...]
    effective: float
    lowest_channel: float


@dataclasses.dataclass(frozen=True)
class TransferReport:
    """How much of each kernel survives a transfer; prints as a table.

    Attributes:
      kernels: one row a block.
      overall: fraction of the effective kernels' energy, over all blocks.
    """

    kernels: tuple[KernelSurvival, ...]
    overall: float

    def __str__(self) -> str:
        """Return the table, percentages of energy."""
        # Undilated forms have one kernel; stages may differ.
        count = max(len(row.steps) for row in self.kernels)
        titles = {2: ("local", "dilated"), 1: ("kernel",)}[count]
        head = ("block", *titles, "effective", "lowest channel")
        rows = [
            (
                row.block,
                *("fitted" if s is None else _percent(s) for s in row.steps),
                *[""] * (count - len(row.steps)),
                _percent(row.effective),
                _percent(row.lowest_channel),
            )
            for row in self.kernels
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in (head, *rows)
        ]
        return "\n".join([*lines, f"Of all kernels' energy {_percent(self.overall)} survives."])


class _Cascade(NamedTuple):
    """A block's large kernel in float64: steps along each axis, or square ones.

    Attributes:
      kernels: for LSKA (horizontal, vertical) pairs of (n, C) a step; for LKA (n, n, C) a step.
      dilation: of the second step; 1 where there is none.
    """

    kernels: tuple[tuple[np.ndarray, ...], ...]
    dilation: int

    def effective(self) -> tuple[np.ndarray, ...]:
        """Return the effective kernel: (horizontal, vertical) of (k, C), or one (k, k, C)."""
        first = self.kernels[0]
        if len(self.kernels) == 1:
            return first
        return tuple(
            effective_kernel(local, dilated, self.dilation)
            for local, dilated in zip(first, self.kernels[1], strict=True)
        )


def transfer_kernels(
    model: Any,
    *,
    k: int | tuple[int, ...] | None = None,
    attention: str | tuple[str, ...] | None = None,
    dilation: int | None = None,
) -> tuple[Any, TransferReport]:
    """Return a model with other large kernels, started from a model's own.

    Args:
      model: the model to start from; it is left as it was.
      k: extent of the new kernels, or one for each stage; None keeps it.
      attention: "lska" from "lka", "lska_trivial" from "lka_trivial", or one for each stage; None
        keeps it.
      dilation: of the new cascade; None is the reference's for a new k and kept otherwise.

    Returns:
      The new model in training mode, and what survives.

    Raises:
      ValueError: an invalid k, an attention that cannot be reached from the model's, or a family
        whose kernels have one size.
    """
    config = new_config(model.config, k=k, attention=attention, dilation=dilation)
    arrays, report = transfer_arrays(arrays_of(model), model.config, config)
    transferred = build_from_arrays(config, arrays, rngs=nnx.Rngs(0))
    transferred.preprocessing = model.preprocessing
    return transferred, report


def transfer_folder(
    folder: str | Path,
    out: str | Path,
    *,
    k: int | tuple[int, ...] | None = None,
    attention: str | tuple[str, ...] | None = None,
    dilation: int | None = None,
    overwrite: bool = False,
) -> tuple[ModelFacts, TransferReport]:
    """Write a model folder with other large kernels, started from those of another folder.

    Args:
      folder: the model folder to start from.
      out: the model folder to write.
      k: as in ``transfer_kernels``.
      attention: as in ``transfer_kernels``.
      dilation: as in ``transfer_kernels``.
      overwrite: replace a model folder that is there.

    Returns:
      What the new folder says about its model, and what survives.

    Raises:
      ValueError: a damaged folder, an invalid k, or an attention that cannot be reached.
      FileNotFoundError: ``folder`` is no model folder.
      FileExistsError: ``out`` is not empty.
    """
    check_can_write(out, overwrite=overwrite)
    facts, arrays = read_model_folder(folder)
    config = new_config(facts.config, k=k, attention=attention, dilation=dilation)
    arrays, report = transfer_arrays(arrays, facts.config, config)
    origin = f"{facts.description}; {_percent(report.overall)} of the energy survives"
    transferred = dataclasses.replace(
        facts, config=config, source={**facts.source, "kernels_transferred_from": origin}
    )
    write_model_folder(out, transferred, arrays, overwrite=overwrite)
    return transferred, report


def new_config(
    config: Any,
    *,
    k: int | tuple[int, ...] | None,
    attention: str | tuple[str, ...] | None,
    dilation: int | None,
) -> VANConfig:
    """Return a config with other large kernels; arguments are those of ``transfer_kernels``."""
    load_capability(family_of(config), "transfer")
    olds = gates_of(vars(config))
    attentions = _each_stage("attention", attention, [old.attention for old in olds])
    extents = _each_stage("k", k, [old.k for old in olds])
    gates = []
    for old, new_attention, extent in zip(olds, attentions, extents, strict=True):
        if new_attention not in (old.attention, _SEPARATED.get(old.attention)):
            reachable = ", ".join(filter(None, (old.attention, _SEPARATED.get(old.attention))))
            raise ValueError(
                f"Kernels of {old.attention} cannot become those of {new_attention}; allowed: "
                f"{reachable}."
            )
        kept = old.dilation if extent == old.k else None
        gates.append(Gate(new_attention, extent, kept if dilation is None else dilation))
    changed: VANConfig = dataclasses.replace(
        config, **{name: tuple(getattr(gate, name) for gate in gates) for name in PER_STAGE}
    )
    return changed


def _each_stage(name: str, value: Any, olds: Sequence[Any]) -> Sequence[Any]:
    """Return one value for each stage; None keeps the old ones."""
    if value is None:
        return olds
    values = value if isinstance(value, tuple) else (value,) * len(olds)
    if len(values) != len(olds):
        raise ValueError(
            f"{name}={value!r} needs one value, or one for each of the {len(olds)} stages."
        )
    return values


def transfer_arrays(
    arrays: Mapping[str, np.ndarray], config: VANConfig, new: VANConfig
) -> tuple[dict[str, np.ndarray], TransferReport]:
    """Return a model's arrays with other large kernels, and what survives.

    Args:
      arrays: parameters and statistics by path, of a model of ``config``.
      config: the model's.
      new: from ``new_config``.
    """
    gates: dict[str, dict[tuple[int, str], np.ndarray]] = {}
    stage_of: dict[str, int] = {}
    result = {}
    for path, array in arrays.items():
        match = _GATE.fullmatch(path)
        if match:
            gates.setdefault(match[1], {})[int(match["step"]), match["leaf"]] = array
            stage_of[match[1]] = int(match["stage"])
        else:
            result[path] = array
    rows, lost, total = [], 0.0, 0.0
    for block, gate in gates.items():
        stage = stage_of[block]
        before, after = config.of_stage(stage), new.of_stage(stage)
        old = _read_cascade(gate, before)
        transferred, steps = _transfer(old, before, after)
        energy, error = _energy_and_error(old.effective(), transferred.effective())
        kept = 1 - error / np.maximum(energy, 1e-300)
        whole = 1 - error.sum() / max(energy.sum(), 1e-300)
        rows.append(KernelSurvival(block, steps, float(whole), float(kept.min())))
        lost, total = lost + error.sum(), total + energy.sum()
        for (step, leaf), array in _write_cascade(transferred, gate, after).items():
            path = f"{block}/attention/gate/depthwise/{step}/{leaf}"
            result[path] = array.astype(np.float32)
    overall = float(1 - lost / max(total, 1e-300))
    return {p: result[p] for p in array_shapes(new)}, TransferReport(tuple(rows), overall)


def _spec(config: VANConfig) -> KernelSpec | None:
    if config.is_trivial:
        return None
    gate = gates_of(vars(config))[0]
    return kernel_spec(gate.k, dilation=gate.dilation)


def _read_cascade(gate: Mapping[tuple[int, str], np.ndarray], config: VANConfig) -> _Cascade:
    count = len(gate) // 2
    kernels = [np.asarray(gate[step, "kernel"], np.float64)[:, :, 0] for step in range(count)]
    spec = _spec(config)
    dilation = spec.dilation if spec else 1
    if config.is_separable:
        pairs = [(kernels[i][0], kernels[i + 1][:, 0]) for i in range(0, count, 2)]
        return _Cascade(tuple(pairs), dilation)
    return _Cascade(tuple((kernel,) for kernel in kernels), dilation)


def _write_cascade(
    cascade: _Cascade, gate: Mapping[tuple[int, str], np.ndarray], new: VANConfig
) -> dict[tuple[int, str], np.ndarray]:
    """Return the arrays of a gate; biases are the old ones, the last corrected."""
    old_steps = [
        (gate[step, "kernel"].astype(np.float64), gate[step, "bias"].astype(np.float64))
        for step in range(len(gate) // 2)
    ]
    kernels = []
    for step in cascade.kernels:
        if new.is_separable:
            kernels += [step[0][None, :, None], step[1][:, None, None]]
        else:
            kernels.append(step[0][:, :, None])
    biases = [bias for _, bias in old_steps]
    if len(kernels) == 2 * len(biases):
        # A 2-D kernel's bias belongs behind both of its 1-D kernels.
        biases = [b for bias in biases for b in (np.zeros_like(bias), bias)]
    new_steps = list(zip(kernels, biases, strict=True))
    biases[-1] = biases[-1] + _constant(old_steps) - _constant(new_steps)
    written = {(i, "kernel"): kernel for i, kernel in enumerate(kernels)}
    return written | {(i, "bias"): bias for i, bias in enumerate(biases)}


def _constant(steps: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return what the steps make of a zero image, away from its border: (C,)."""
    value = np.zeros(steps[0][1].shape)
    for kernel, bias in steps:
        value = value * kernel.sum(axis=(0, 1, 2)) + bias
    return value


def _transfer(
    old: _Cascade, config: VANConfig, new: VANConfig
) -> tuple[_Cascade, tuple[float | None, ...]]:
    steps: list[float | None] = [1.0] * len(old.kernels)
    cascade = old
    if new.is_separable and not config.is_separable:
        separated = [best_rank_1(kernel) for (kernel,) in old.kernels]
        products = [v[:, None] * h[None] for v, h in separated]
        for i, ((kernel,), product) in enumerate(zip(old.kernels, products, strict=True)):
            steps[i] = _kept(np.square(kernel).sum(), np.square(kernel - product).sum())
        cascade = _Cascade(tuple((h, v) for v, h in separated), old.dilation)
    spec, old_spec = _spec(new), _spec(config)
    if spec is None or old_spec is None or spec.dilation == old_spec.dilation:
        size = spec.dilated_size if spec else gates_of(vars(new))[0].k
        resized = tuple(resize_centred(kernel, size) for kernel in cascade.kernels[-1])
        energy, error = _energy_and_error(cascade.kernels[-1], resized)
        steps[-1] = (steps[-1] or 0) * _kept(energy.sum(), error.sum())
        return _Cascade((*cascade.kernels[:-1], resized), cascade.dilation), tuple(steps)
    fitted = [fit_cascade(kernel, spec) for kernel in cascade.effective()]
    local, dilated = zip(*fitted, strict=True)
    return _Cascade((local, dilated), spec.dilation), (None,) * len(steps)


def _energy_and_error(
    old: tuple[np.ndarray, ...], new: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return |old|^2 and |old - new|^2 of each channel's 2-D kernel, (C,) each.

    A kernel is one (n, n, C), or a pair of (n, C) whose product it is; the sizes may differ.
    """
    size = max(kernel.shape[0] for kernel in (*old, *new))

    def square(kernel: tuple[np.ndarray, ...]) -> np.ndarray:
        padded = [resize_centred(part, size) for part in kernel]
        return padded[0] if len(padded) == 1 else padded[1][:, None] * padded[0][None]

    before = square(old)
    return np.square(before).sum((0, 1)), np.square(before - square(new)).sum((0, 1))


def _kept(energy: float, error: float) -> float:
    return float(1 - error / energy) if energy else 1.0


def _percent(fraction: float) -> str:
    # Never rounded up to a whole that it is not.
    shown = f"{100 * fraction:.1f}"
    return f"{'99.9+' if shown == '100.0' and fraction < 1 - 1e-9 else shown} %"
