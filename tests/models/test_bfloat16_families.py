"""Gradients of every family's small network in bfloat16 against float32, at real map sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters

# Of the norm of a gradient. Values are rounded to 8 significant bits, 0.2 % each, a few times.
MOST = 0.02
# Of the norm of all gradients: below it differences of nearly equal numbers are left over, as of a
# bias ahead of a BatchNorm, or of queries that attend to all pixels nearly alike.
LEAST_SHARE = 1e-4
ONE = {"dims": (32,), "depths": (1,)}
TOKENS = {"dim": 32, "heads": 2, "depth": 1, "patch_size": 8}
FAMILIES = {
    "convnext_tiny": ONE,
    "swin_tiny_patch4_window7_224": {**ONE, "heads": (2,), "depths": (2,)},
    "pvt_v2_b0": {**ONE, "heads": (2,), "ffn_ratios": (2,), "reductions": (4,)},
    "pvt_v2_b2_li": {**ONE, "heads": (2,), "ffn_ratios": (2,), "reductions": (1,)},
    "inception_next_tiny": {**ONE, "mlp_ratios": (2,)},
    "unireplknet_a": {**ONE, "large_every": (1,)},
    "deit3_small_patch16_224": TOKENS,
    "deit_tiny_distilled_patch16_224": TOKENS,
}


def noise():
    return np.random.default_rng(0).standard_normal((8, 128, 128, 3))


def unlike_images():
    """Return noise whose brightness and contrast differ by image, as those of photographs do."""
    rng = np.random.default_rng(1)
    brightness, contrast = rng.uniform(-1, 1, (8, 1, 1, 3)), rng.uniform(0.5, 1.5, (8, 1, 1, 1))
    return brightness + contrast * noise()


def gradients(name, dtype, pictures, *, change=lambda model: None):
    model = create_model(name, **FAMILIES[name], num_classes=10, dtype=dtype)
    change(model)
    functions, stats = ModelFunctions(model), batch_stats(model)
    rng = np.random.default_rng(0)
    images = jnp.asarray(pictures, jnp.float32)
    drawn = {
        path: 3 * array
        if path.endswith("kernel")
        else array
        if path.endswith("of_each_image")
        else jnp.asarray(rng.uniform(0.5, 1.5, array.shape), jnp.float32)
        for path, array in parameters(model).items()
    }

    @jax.jit
    def run(params):
        def loss(params):
            logits, _ = functions.train(params, stats, images, key=jax.random.key(0))
            return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits)[:, :5]))

        return jax.grad(loss)(params)

    return jax.tree.map(np.asarray, run(drawn))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_gradient_is_that_of_float32(name):
    exact, found = (gradients(name, dtype, unlike_images()) for dtype in ("float32", "bfloat16"))
    whole = np.sqrt(sum(float(np.sum(np.square(array))) for array in exact.values()))
    norms = {path: float(np.linalg.norm(array)) for path, array in exact.items()}
    seen = [path for path, norm in norms.items() if norm > LEAST_SHARE * whole]
    assert len(seen) > len(exact) // 2
    errors = {p: float(np.linalg.norm(found[p] - exact[p])) / norms[p] for p in seen}
    assert {path: error for path, error in errors.items() if not error < MOST} == {}


class BiasOfEachImage(nnx.Module):
    """A layer that adds zeros (B, 1, 1, C): their gradients are each image's part of a bias's."""

    def __init__(self, layer):
        self.layer = layer
        self.of_each_image = nnx.Param(jnp.zeros((8, 1, 1, layer.out_features), jnp.float32))

    def __call__(self, x):
        out = self.layer(x)
        return (out.astype(jnp.float32) + self.of_each_image[...]).astype(out.dtype)


@pytest.mark.slow
def test_what_nearly_cancels_between_images_is_exact_beside_each_of_them():
    """A BatchNorm behind two products takes the mean out of what comes back, so that the parts of
    images of the same statistics cancel to 1 / 600. The rest has what rounding left of each."""
    block, path = "stages/0/blocks/0", "expand/of_each_image"

    def count_each_image(model):
        model.stages[0].blocks[0].expand = BiasOfEachImage(model.stages[0].blocks[0].expand)

    exact, found = (
        gradients("unireplknet_a", dtype, noise(), change=count_each_image)
        for dtype in ("float32", "bfloat16")
    )
    parts, found_parts = (np.squeeze(g[f"{block}/{path}"], (1, 2)) for g in (exact, found))
    of_all, found_of_all = (g[f"{block}/expand/layer/bias"] for g in (exact, found))
    norm = np.linalg.norm
    assert norm(found_parts - parts) < 0.005 * norm(parts)
    size = norm(np.sum(np.abs(parts), axis=0))
    assert norm(of_all) < 0.005 * size
    assert norm(found_of_all - of_all) < 0.001 * size
    # The sum itself loses nothing.
    assert norm(found_of_all - np.sum(found_parts, axis=0)) < 1e-3 * norm(of_all)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_sum_over_a_map_is_a_bfloat16_one_where_it_is_lowered_for_others(name, platform):
    model = create_model(name, **FAMILIES[name], num_classes=10, dtype="bfloat16")
    functions, stats = ModelFunctions(model), batch_stats(model)

    def loss(params, images):
        logits, _ = functions.train(params, stats, images, key=jax.random.key(0))
        return jnp.mean(logits)

    traced = jax.jit(jax.grad(loss)).trace(parameters(model), jnp.zeros((2, 64, 64, 3)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    sums = [line for line in text.splitlines() if "stablehlo.reduce(" in line and "add" in line]
    assert sums
    assert [line for line in sums if "xbf16>" in line.rpartition("->")[0]] == []


def test_the_families_are_all_there():
    from lska_jax.models.table import families, model_entry

    # Other tests register families of their own.
    ours = {name for name, f in families().items() if f.network.startswith("lska_jax.")}
    assert {model_entry(name).family for name in FAMILIES} == ours - {"van"}
