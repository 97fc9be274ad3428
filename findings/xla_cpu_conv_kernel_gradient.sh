#!/usr/bin/env bash
# The gradient of a 3x3 kernel takes XLA several times as long as the convolution itself on CPU.
#
# Versions: jax and jaxlib 0.10.2, 2026-11; x86-64 with AVX2.
# Expected by most: forward pass, gradient of the images and gradient of the kernel are the same number of
#   multiplications, and take about the same time.
# Seen: 2 images of 128x128x256 to 256 channels, 3x3, float32, two cores: forward 0.35 s, gradient of the images 0.34,
#   gradient of the kernel 3.0 to 4.4 s (13 GFLOP/s). Of 64x64 0.075, 0.074 and 0.26 s: the larger the map, the slower.
#   Heads of segmentors and detectors are made of such convolutions, and spent most of a training step in it.
# What helps: the same sums as matrix products, of shifted maps with the gradient: nine of them, or three of three maps
#   beside one another: 0.37 s.
# Ends 0 while the behaviour is as described (the kernel's gradient takes at least three times as long as the forward
# pass, and at least twice as long as the products), 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import statistics
import sys
import time

import jax
import jax.numpy as jnp

SIDE, CHANNELS = 128, 128


def convolve(images, kernel):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def of_kernel(images, kernel, gradient):
    return jax.vjp(lambda kernel: convolve(images, kernel), kernel)[1](gradient)[0]


def of_kernel_as_products(images, kernel, gradient):
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = gradient.reshape(-1, CHANNELS)
    taps = [
        padded[:, i : i + SIDE, j : j + SIDE].reshape(-1, CHANNELS).T @ rows
        for i in range(3)
        for j in range(3)
    ]
    return jnp.stack(taps).reshape(kernel.shape)


def seconds(function, *arrays):
    function = jax.jit(function)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        function(*arrays).block_until_ready()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


first, second, third = jax.random.split(jax.random.key(0), 3)
images = jax.random.normal(first, (2, SIDE, SIDE, CHANNELS))
gradient = jax.random.normal(second, (2, SIDE, SIDE, CHANNELS))
kernel = jax.random.normal(third, (3, 3, CHANNELS, CHANNELS))
same = jnp.allclose(
    of_kernel(images, kernel, gradient),
    of_kernel_as_products(images, kernel, gradient),
    rtol=1e-3,
    atol=0.1,
)
forward = seconds(convolve, images, kernel)
slow = seconds(of_kernel, images, kernel, gradient) / forward
quick = seconds(of_kernel_as_products, images, kernel, gradient) / forward
print(f"times the forward pass: gradient of the kernel {slow:.1f}, as products {quick:.1f}")
sys.exit(not (bool(same) and slow > 3 and slow > 2 * quick))
PYTHON
