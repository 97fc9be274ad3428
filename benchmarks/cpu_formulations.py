"""What the formulations that this library chose on CPU gain, as ratios within one run.

    python -m benchmarks.cpu_formulations

Each pair runs alternately on the same arrays; the figure is the ratio of the medians of several
repetitions. Close other programs first: the ratios hold for an otherwise idle machine.
"""

import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from lska_jax import create_model
from lska_jax.config import base_config
from lska_jax.nn.functional import ModelFunctions
from lska_jax.ops import depthwise_conv
from lska_jax.training.optimizer import cosine_schedule, make_optimizer
from lska_jax.training.run import step_spec
from lska_jax.training.state import host_state
from lska_jax.training.step import train_step

REPETITIONS = 7
_STEP_ONLY = "--seconds-of-a-train-step"
_HUGE_PAGES = "glibc.malloc.hugetlb=1"


def main() -> None:
    """Print all ratios."""
    if sys.argv[1:] == [_STEP_ONLY]:
        print(_seconds_of_a_train_step())
        return
    device = jax.devices()[0]
    print(f"{device.device_kind} ({os.cpu_count()} cores), jax {jax.__version__}, float32,")
    print(f"ratio of medians over {REPETITIONS} alternating repetitions; above 1: ours is faster\n")
    _depthwise()
    _pointwise()
    _huge_pages()


def _depthwise() -> None:
    print("depth-wise convolution: lax.conv_general_dilated / shifted sum")
    cases = [(8, 56, 32, (1, 5), 1), (8, 56, 32, (7, 1), 3), (8, 56, 256, (3, 3), 1),
             (8, 28, 512, (3, 3), 1), (32, 8, 256, (3, 3), 1)]  # fmt: skip
    for batch, size, channels, kernel_size, dilation in cases:
        x = _normal(0, (batch, size, size, channels))
        w = _normal(1, (*kernel_size, 1, channels))
        forms = {}
        for name in ("xla", "shift"):
            run = functools.partial(depthwise_conv, dilation=dilation, implementation=name)
            forms[name] = {"forward": (run, (x, w)), **_gradients(run, x, w)}
        ratios = {
            part: _ratio({name: forms[name][part] for name in ("xla", "shift")})
            for part in forms["xla"]
        }
        shape = f"({batch}, {size}, {size}, {channels}), kernel {kernel_size}, d={dilation}"
        print(f"  {shape:<48}{_shown(ratios)}")


def _pointwise() -> None:
    print("1x1 convolution: lax.conv or a product over four axes / one matrix product")

    def convolution(x: jax.Array, w: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w[None, None], (1, 1), "VALID", dimension_numbers=numbers
        )

    def four_axes(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.dot_general(x, w, (((3,), (0,)), ((), ())))

    def matrix(x: jax.Array, w: jax.Array) -> jax.Array:
        return (x.reshape(-1, x.shape[-1]) @ w).reshape(*x.shape[:-1], -1)

    for batch, size, channels, out_channels in [(128, 16, 32, 128), (8, 56, 32, 256)]:
        x = _normal(0, (batch, size, size, channels))
        w = _normal(1, (channels, out_channels))
        for name, other in (("conv", convolution), ("four axes", four_axes)):
            ratios = {"forward": _ratio({name: (other, (x, w)), "matrix": (matrix, (x, w))})}
            others, ours = _gradients(other, x, w), _gradients(matrix, x, w)
            for part in ours:
                ratios[part] = _ratio({name: others[part], "matrix": ours[part]})
            shape = f"({batch}, {size}, {size}, {channels}) -> {out_channels}, {name}"
            print(f"  {shape:<48}{_shown(ratios)}")


def _huge_pages() -> None:
    print("a train step (32 px, batch 128, three stages): glibc's default / huge pages")
    seconds: dict[str, list[float]] = {"default": [], "huge": []}
    for _ in range(3):
        for name, tunables in (("default", ""), ("huge", _HUGE_PAGES)):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.cpu_formulations", _STEP_ONLY],
                env={**os.environ, "GLIBC_TUNABLES": tunables},
                capture_output=True,
                text=True,
                check=True,
            )
            seconds[name].append(float(done.stdout))
    ratio = statistics.median(seconds["default"]) / statistics.median(seconds["huge"])
    print(f"  {'median of 3 processes each':<48}step {ratio:.2f}")


def _seconds_of_a_train_step() -> float:
    config = base_config()
    config.model.num_classes = 10
    model = create_model(
        "van_lska_tiny",
        num_classes=10,
        dims=(48, 96, 192),
        depths=(1, 3, 3),
        ffn_ratios=(4, 4, 4),
        stem_stride=2,
    )
    optimizer = make_optimizer(weight_decay=0.05)
    schedule = cosine_schedule(
        steps_per_epoch=100,
        epochs=10,
        warmup_epochs=1,
        learning_rate=1e-3,
        min_learning_rate=1e-6,
        warmup_learning_rate=1e-6,
    )
    step = functools.partial(
        train_step,
        functions=ModelFunctions(model),
        optimizer=optimizer,
        schedule=schedule,
        spec=step_spec(config),
    )
    state = host_state(model, optimizer, use_ema=False)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (128, 32, 32, 3), dtype=np.uint8),
        "label": rng.integers(0, 10, 128).astype(np.int32),
        "mask": np.ones(128, bool),
    }
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    seconds = []
    for _ in range(REPETITIONS + 2):
        started = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])


_Call = tuple[Callable[..., object], tuple[jax.Array, ...]]


def _gradients(run: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> dict[str, _Call]:
    g = jnp.ones_like(run(x, w))
    return {
        "input gradient": (lambda x, w, g: jax.vjp(lambda x: run(x, w), x)[1](g), (x, w, g)),
        "weight gradient": (lambda x, w, g: jax.vjp(lambda w: run(x, w), w)[1](g), (x, w, g)),
    }


def _ratio(pair: Mapping[str, _Call]) -> float:
    """Return the median seconds of the first over those of the second."""
    jitted = [(jax.jit(function), arguments) for function, arguments in pair.values()]
    for function, arguments in jitted:
        jax.block_until_ready(function(*arguments))
    seconds: list[list[float]] = [[], []]
    for _ in range(REPETITIONS):
        for measured, (function, arguments) in zip(seconds, jitted, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            measured.append(time.perf_counter() - started)
    return statistics.median(seconds[0]) / statistics.median(seconds[1])


def _normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def _shown(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{part} {ratio:.1f}" for part, ratio in ratios.items())


if __name__ == "__main__":
    main()
