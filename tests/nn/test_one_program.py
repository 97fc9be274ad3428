"""A network that is called on arrays is one program; inside a trace nothing changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model
from lska_jax.nn.functional import batch_stats

IMAGES = np.linspace(-1, 1, 2 * 16 * 16 * 3, dtype=np.float32).reshape(2, 16, 16, 3)
SMALL = {"k": 7, "dims": (4,), "depths": (1,), "ffn_ratios": (2,), "num_classes": 3}


@pytest.fixture(scope="module")
def model():
    return create_model("van_lska_tiny", **SMALL)


@pytest.fixture
def compiled():
    """Return the names of the programs that are compiled from here on."""
    names: list[str] = []

    def note(event: str, seconds: float, **told: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(told.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


def test_a_call_on_arrays_compiles_one_program_and_gives_what_jit_gives(model, compiled):
    model.eval()
    logits = model(IMAGES)
    assert len([name for name in compiled if "zeros" not in name]) <= 2
    assert not isinstance(logits, jax.core.Tracer)
    expected = nnx.jit(lambda model, images: model(images))(model, IMAGES)
    np.testing.assert_array_equal(logits, expected)
    compiled.clear()
    model(IMAGES + 1)
    assert not compiled


def test_in_training_mode_it_keeps_the_statistics_of_the_batch():
    model = create_model("van_lska_tiny", **SMALL)
    before = {path: np.asarray(array) for path, array in batch_stats(model).items()}
    model(IMAGES)
    after = batch_stats(model)
    assert all((before[path] != np.asarray(after[path])).any() for path in before)


def test_inside_a_trace_the_call_is_part_of_it(model):
    model.eval()
    jaxpr = jax.make_jaxpr(lambda images: model(images))(IMAGES)
    # Of its stem's convolution.
    assert any("custom_vjp" in equation.primitive.name for equation in jaxpr.eqns)
    shapes = jax.eval_shape(lambda: model(jnp.asarray(IMAGES)))
    assert shapes.shape == (2, 3)
