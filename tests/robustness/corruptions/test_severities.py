"""What lets five severities share a program: random numbers, tables, branches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.robustness.corruptions import corrupt, corrupting, random_numbers
from lska_jax.robustness.corruptions.severities import at, switched

KEYS = jax.random.split(jax.random.key(5), 3)
PAIRS = {
    "bits": (
        lambda key: random_numbers.bits(key, (5, 7)),
        lambda key: jax.random.bits(key, (5, 7)),
    ),
    "uniform": (
        lambda key: random_numbers.uniform(key, (33,), -45.0, 45.0),
        lambda key: jax.random.uniform(key, (33,), jnp.float32, -45.0, 45.0),
    ),
    "normal": (
        lambda key: random_numbers.normal(key, (9, 11, 3)),
        lambda key: jax.random.normal(key, (9, 11, 3), jnp.float32),
    ),
    "split": (
        lambda key: jax.random.key_data(jnp.stack(random_numbers.split(key))),
        lambda key: jax.random.key_data(jax.random.split(key)),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    "implementation", ["threefry2x32", pytest.param("rbg", marks=pytest.mark.slow)]
)
def test_random_numbers_are_those_of_jax_bit_for_bit(name, implementation):
    ours, jaxs = PAIRS[name]
    keys = KEYS
    if implementation != "threefry2x32":
        keys = jax.random.split(jax.random.key(5, impl=implementation), 3)
    both = jax.jit(lambda keys: (jax.vmap(ours)(keys), jax.vmap(jaxs)(keys)))
    first, second = both(keys)
    assert first.dtype == second.dtype
    np.testing.assert_array_equal(first, second)


def test_the_numbers_of_a_larger_shape_begin_with_those_of_a_smaller_one():
    few, many = (np.asarray(random_numbers.bits(KEYS[0], (n, 4, 5))) for n in (2, 3))
    np.testing.assert_array_equal(many[:2], few)


def test_all_severities_of_a_corruption_are_one_program():
    images = np.random.default_rng(0).integers(0, 256, (1, 9, 10, 3)).astype(np.uint8)
    before = corrupting._corrupt._cache_size()
    results = [np.asarray(corrupt(images, "saturate", severity)) for severity in range(1, 6)]
    assert corrupting._corrupt._cache_size() == before + 1
    assert len({result.tobytes() for result in results}) == 5


def test_equal_settings_share_a_branch_and_each_gives_its_own_result():
    seen = []

    def add(setting, x):
        seen.append(setting)
        return x + setting

    compute = jax.jit(lambda severity, x: switched(severity, (1, 5, 5, 2, 1), add, x))
    found = [int(compute(severity, jnp.int32(10))) for severity in range(1, 6)]
    assert found == [11, 15, 15, 12, 11]
    assert seen == [1, 5, 2]
    assert float(jax.jit(lambda s: at(s, (0.5, 0.25)))(2)) == 0.25
