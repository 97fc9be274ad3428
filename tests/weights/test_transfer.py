"""Kernels of another size: what is kept exactly, what is fitted, and what the report says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import ONE_BLOCK, small_model, small_state_dict

from lska_jax import VAN
from lska_jax.commands.transfer import main
from lska_jax.ops.kernel_spec import kernel_spec
from lska_jax.weights import (
    ModelFacts,
    load_state_dict,
    read_facts,
    read_model_folder,
    transfer_kernels,
    write_model_folder,
)
from lska_jax.weights.kernel_fit import best_rank_1, effective_kernel, fit_cascade, resize_centred
from lska_jax.weights.pretrained import arrays_of


def trained(attention: str = "lska", **config) -> VAN:
    model = small_model(attention, **config)
    load_state_dict(model, small_state_dict(attention, **config))
    return model


def logits(model: VAN, size: int = 16) -> np.ndarray:
    model = nnx.clone(model)
    model.eval()
    x = np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)
    return np.asarray(jax.jit(lambda x: model(x))(x))


def gate_kernels(model: VAN) -> list[np.ndarray]:
    steps = model.stages[0].blocks[0].attention.gate.depthwise
    return [np.asarray(step.kernel[...])[:, :, 0] for step in steps]


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize(
    ("attention", "k", "new"),
    [
        ("lska", 23, 35),
        ("lka_trivial", 3, 5),
        pytest.param("lka", 7, 11, marks=pytest.mark.slow),
        pytest.param("lska_trivial", 5, 9, marks=pytest.mark.slow),
    ],
)
def test_a_larger_k_of_the_same_dilation_changes_nothing(attention, k, new):
    model = trained(attention, k=k, **ONE_BLOCK)
    larger, report = transfer_kernels(model, k=new)
    assert larger.config.k == new and report.overall == 1
    (row,) = report.kernels
    assert row.effective == 1 and set(row.steps) == {1.0}
    # Added taps are zero; sums with them round the same or nearly so.
    np.testing.assert_allclose(logits(larger), logits(model), rtol=1e-5, atol=1e-6)


def test_a_smaller_k_of_the_same_dilation_keeps_the_centre():
    model = trained(k=53)
    smaller, report = transfer_kernels(model, k=35)
    old, new = gate_kernels(model), gate_kernels(smaller)
    np.testing.assert_array_equal(new[0], old[0])
    np.testing.assert_array_equal(new[2][0], old[2][0, 3:-3])
    assert len(report.kernels) == 3
    row = report.kernels[0]
    h, v = old[2][0].astype(float), old[3][:, 0].astype(float)
    whole = np.square(h).sum(0) * np.square(v).sum(0)
    kept = np.square(h[3:-3]).sum(0) * np.square(v[3:-3]).sum(0)
    # Of the product of both 1-D kernels, summed over channels.
    assert row.steps == (1.0, pytest.approx(kept.sum() / whole.sum()))
    assert row.lowest_channel < row.effective < 1


def test_lka_becomes_lska_by_the_best_rank_1_of_each_kernel():
    model = trained("lka")
    separable, report = transfer_kernels(model, attention="lska")
    assert separable.config.attention == "lska" and separable.config.k == 23
    old, new = gate_kernels(model), gate_kernels(separable)
    for step in (0, 1):
        horizontal, vertical = new[2 * step][0], new[2 * step + 1][:, 0]
        error = energy = 0.0
        for channel in range(4):
            kernel = old[step][..., channel].astype(float)
            values = np.linalg.svd(kernel, compute_uv=False)
            product = np.outer(vertical[:, channel], horizontal[:, channel])
            # Eckart and Young: what is left is the energy of the other singular values.
            assert np.square(kernel - product).sum() == pytest.approx(
                np.square(values[1:]).sum(), rel=1e-4
            )
            error += np.square(values[1:]).sum()
            energy += np.square(values).sum()
        assert report.kernels[0].steps[step] == pytest.approx(1 - error / energy)


def test_a_separable_lka_survives_as_lska_whole():
    model = trained("lka", **ONE_BLOCK)
    for stage in model.stages:
        for block in stage.blocks:
            for step in block.attention.gate.depthwise:
                kernel = step.kernel[...]
                step.kernel.set_value(kernel[:, :1] * kernel[:1] / kernel[:1, :1])
    separable, report = transfer_kernels(model, attention="lska")
    assert report.overall == pytest.approx(1, abs=1e-9)
    # Float32 rounding; the biases stand where they act as before, borders included.
    scale = np.abs(logits(model)).max()
    assert np.abs(logits(separable) - logits(model)).max() < 1e-4 * scale


def test_attention_and_k_may_change_together():
    both, report = transfer_kernels(trained("lka"), attention="lska", k=35)
    one, _ = transfer_kernels(trained("lka"), attention="lska")
    two, _ = transfer_kernels(one, k=35)
    assert both.config == two.config
    ours, theirs = arrays_of(both), arrays_of(two)
    assert all(np.allclose(ours[path], theirs[path], rtol=1e-5, atol=1e-6) for path in ours)
    assert 0 < report.overall < 1


@pytest.mark.parametrize(
    ("attention", "k", "new"),
    [("lska", 23, 11), ("lka", 7, 23), pytest.param("lska", 7, 23, marks=pytest.mark.slow)],
)
def test_another_dilation_is_fitted_to_the_effective_kernel(attention, k, new):
    model = trained(attention, k=k)
    changed, report = transfer_kernels(model, k=new)
    assert report.kernels[0].steps == (None, None)
    assert 0 < report.overall < 1
    back, again = transfer_kernels(changed, k=new)
    assert again.overall == 1 and back.config == changed.config


@pytest.mark.parametrize("dims", [1, 2])
def test_the_fit_finds_a_cascade_that_is_there(dims):
    spec = kernel_spec(11)
    local = draw(*(spec.local_size,) * dims, 3)
    dilated = draw(*(spec.dilated_size,) * dims, 3)
    whole = effective_kernel(local, dilated, spec.dilation)
    assert whole.shape == (*(11,) * dims, 3)
    fitted = effective_kernel(*fit_cascade(whole, spec), spec.dilation)
    # Least squares by turns converges linearly; a thousandth of the kernel is a find.
    assert np.abs(fitted - whole).max() < 1e-3 * np.abs(whole).max()


def test_the_fit_leaves_no_better_local_kernel():
    spec, target = kernel_spec(11), draw(23, 2)
    local, dilated = fit_cascade(target, spec)
    wanted = resize_centred(target, 11)

    def error(local: np.ndarray) -> np.ndarray:
        return np.square(effective_kernel(local, dilated, 2) - wanted).sum(0)

    best = error(local)
    for tap in range(spec.local_size):
        for step in (-1e-2, 1e-2):
            moved = local.copy()
            moved[tap] += step
            assert np.all(error(moved) > best - 1e-6)


def test_the_effective_kernel_is_the_convolution_of_its_steps():
    local, dilated = draw(5, 1), draw(7, 1)
    spread = np.zeros(19)
    spread[::3] = dilated[:, 0]
    np.testing.assert_allclose(
        effective_kernel(local, dilated, 3)[:, 0], np.convolve(spread, local[:, 0])
    )


def test_a_zero_kernel_stays_zero():
    vertical, horizontal = best_rank_1(np.zeros((5, 5, 2)))
    assert not np.any(vertical[:, None] * horizontal[None])
    fitted = fit_cascade(np.zeros((23, 2)), kernel_spec(11))
    assert not np.any(effective_kernel(*fitted, 2))


def test_the_last_bias_keeps_the_constant_part_of_the_gate():
    model = trained(k=53, **ONE_BLOCK)
    smaller, _ = transfer_kernels(model, k=23)

    @nnx.jit
    def convolved(gate: nnx.Module, x: jax.Array) -> jax.Array:
        return functools.reduce(lambda x, step: step(x), gate.depthwise, x)

    def constant(model: VAN) -> np.ndarray:
        gate = model.stages[0].blocks[0].attention.gate
        return np.asarray(convolved(gate, jnp.zeros((1, 65, 65, 4))))[0, 32, 32]

    # The middle of a black image, far from its border; float32 rounding.
    np.testing.assert_allclose(constant(smaller), constant(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("attention", "options", "message"),
    [
        ("lska", {"attention": "lka"}, "Kernels of lska cannot become those of lka; allowed: lska"),
        ("lka", {"attention": "lska_trivial"}, "allowed: lka, lska"),
        ("lska", {"k": 24}, "k=24 .* is not a valid kernel size"),
    ],
)
def test_what_cannot_be_reached_is_refused(attention, options, message):
    with pytest.raises(ValueError, match=message):
        transfer_kernels(small_model(attention), **options)


def test_the_command_writes_a_folder_and_a_readable_table(tmp_path, capsys):
    model = trained("lka")
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    folder = write_model_folder(tmp_path / "lka", facts, arrays_of(model))
    out = tmp_path / "lska"
    assert main([str(folder), "--attention", "lska", "--k", "35", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["block", "local", "dilated", "effective", "lowest", "channel"]
    assert lines[1].startswith("stages/0/blocks/0") and lines[1].count("%") == 4
    assert len({len(line) for line in lines[:4]}) == 1
    assert "Of all kernels' energy" in lines[4]
    facts, arrays = read_model_folder(out)
    assert (facts.config.attention, facts.config.k) == ("lska", 35)
    assert "k=23" in read_facts(out).source["kernels_transferred_from"]
    expected = arrays_of(transfer_kernels(model, attention="lska", k=35)[0])
    assert all(np.array_equal(arrays[path], expected[path]) for path in expected)


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path), "--k", "35", "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith("Error: ")
