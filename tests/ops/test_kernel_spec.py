"""Sizes of the depth-wise cascade for a kernel of extent k."""

import dataclasses
import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.kernel_spec import KernelSpec, check_odd_kernel, default_dilation, kernel_spec

# Kernel table of the reference code: k, local size, dilated size, dilation.
REFERENCE_TABLE = [
    (7, 3, 3, 2),
    (11, 3, 5, 2),
    (23, 5, 7, 3),
    (35, 5, 11, 3),
    (41, 5, 13, 3),
    (53, 5, 17, 3),
]


def is_accepted(k: int, dilation: int | None = None) -> bool:
    try:
        inspect.unwrap(kernel_spec)(k, dilation=dilation)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("k", "local", "dilated", "dilation"), REFERENCE_TABLE)
def test_the_sizes_are_those_of_the_reference_table(k, local, dilated, dilation):
    expected = KernelSpec(k=k, dilation=dilation, local_size=local, dilated_size=dilated)
    assert kernel_spec(k) == expected


def test_the_papers_largest_kernel_65_has_21_dilated_taps():
    assert kernel_spec(65) == KernelSpec(k=65, dilation=3, local_size=5, dilated_size=21)


@pytest.mark.parametrize("dilation", [1, 2, 3, 4, 5, 8])
def test_every_accepted_kernel_stacks_to_extent_k_with_odd_steps(dilation):
    accepted = [k for k in range(1, 330) if is_accepted(k, dilation)]
    assert len(accepted) >= 20
    for k in accepted:
        spec = kernel_spec(k, dilation=dilation)
        assert spec.local_size + spec.dilation * (spec.dilated_size - 1) == k
        assert spec.local_size == 2 * dilation - 1
        assert spec.local_size % 2 == spec.dilated_size % 2 == 1


@pytest.mark.parametrize("dilation", [1, 2, 3, 4, 5])
def test_a_kernel_is_refused_only_if_no_odd_number_of_taps_reaches_its_extent(dilation):
    reachable = {2 * dilation - 1 + dilation * (n - 1) for n in range(1, 200, 2)}
    for k in range(1, 150):
        assert is_accepted(k, dilation) == (k in reachable), k


def test_the_default_dilation_is_2_for_7_and_11_and_3_for_all_others():
    assert {k: default_dilation(k) for k in (7, 11, 23, 35, 41, 53, 65, 101)} == {
        7: 2, 11: 2, 23: 3, 35: 3, 41: 3, 53: 3, 65: 3, 101: 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("k", "nearest"),
    [(21, "17 or 23"), (24, "23 or 29"), (9, "7 or 11"), (64, "59 or 65"), (1, "5"), (-4, "5")],
)
def test_a_refused_kernel_names_the_nearest_that_work(k, nearest):
    with pytest.raises(ValueError, match=rf"k={k} .*Nearest valid k: {nearest}\.") as refusal:
        kernel_spec(k)
    named = [int(word) for word in nearest.split(" or ")]
    assert all(is_accepted(candidate) for candidate in named), refusal
    assert not any(is_accepted(c) for c in range(min(named), max(named)) if c not in named)


def test_a_refused_kernel_names_the_dilations_it_would_work_with():
    with pytest.raises(ValueError, match=r"Or keep k=31 and pass dilation=2 or 4\."):
        kernel_spec(31)
    assert is_accepted(31, 2) and is_accepted(31, 4)


def test_an_explicit_dilation_replaces_the_default():
    expected = KernelSpec(k=23, dilation=2, local_size=3, dilated_size=11)
    assert kernel_spec(23, dilation=2) == expected


def test_a_refusal_with_an_explicit_dilation_names_kernels_of_that_dilation():
    with pytest.raises(ValueError, match=r"Nearest valid k for d=4: 23 or 31\."):
        kernel_spec(25, dilation=4)


@pytest.mark.parametrize("dilation", [0, -3])
def test_a_dilation_below_one_is_refused(dilation):
    with pytest.raises(ValueError, match=f"dilation must be at least 1, got {dilation}"):
        kernel_spec(23, dilation=dilation)


@pytest.mark.parametrize("number", [np.int32, np.uint8, np.array, jnp.asarray])
def test_integers_of_numpy_and_jax_become_plain_ones(number):
    spec = kernel_spec(number(23), dilation=number(2))
    assert spec == kernel_spec(23, dilation=2)
    assert {type(value) for value in dataclasses.astuple(spec)} == {int}
    assert type(check_odd_kernel(number(21))) is int


@pytest.mark.parametrize("k", ["23", 23.0, True, None])
def test_a_kernel_size_that_is_no_int_is_a_type_error(k):
    with pytest.raises(TypeError, match="k must be an int, got"):
        inspect.unwrap(kernel_spec)(k)


def test_a_dilation_that_is_no_int_is_a_type_error():
    with pytest.raises(TypeError, match="dilation must be an int, got 3.0"):
        inspect.unwrap(kernel_spec)(23, dilation=3.0)


@pytest.mark.parametrize("k", [1, 3, 21, 23, 65, 301])
def test_the_trivial_forms_take_any_positive_odd_kernel(k):
    assert check_odd_kernel(k) == k


@pytest.mark.parametrize(("k", "nearest"), [(22, "21 or 23"), (0, "1"), (-5, "1")])
def test_the_trivial_forms_refuse_other_kernels_naming_the_nearest(k, nearest):
    with pytest.raises(ValueError, match=rf"k={k} .*Nearest valid: {nearest}\."):
        check_odd_kernel(k)


@pytest.mark.parametrize("k", ["23", 23.0, True, None])
def test_the_trivial_forms_refuse_a_kernel_size_that_is_no_int(k):
    with pytest.raises(TypeError, match="k must be an int, got"):
        inspect.unwrap(check_odd_kernel)(k)
