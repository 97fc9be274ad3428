"""The run that tests of the trainer share: a network of one block, twelve steps on digits."""

import functools
import runpy
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from lska_jax.running import parallel

ROOT = Path(__file__).parents[1]
TRAIN_EXAMPLES, TEST_EXAMPLES = 1442, 355
BATCH_SIZE = 240
STEPS_PER_EPOCH, EPOCHS = TRAIN_EXAMPLES // BATCH_SIZE, 2
STEPS = EPOCHS * STEPS_PER_EPOCH


def small_config() -> ConfigDict:
    """Return the config; whoever changes nothing in it compiles nothing new."""
    config = runpy.run_path(str(ROOT / "configs" / "digits.py"))["get_config"]("11")
    config.model.update({"dims": (8,), "depths": (1,), "ffn_ratios": (2,)})
    config.data.num_workers = 0
    config.optimizer.update({"epochs": EPOCHS, "warmup_epochs": 1})
    config.training.update({"batch_size": BATCH_SIZE, "eval_batch_size": 120})
    # Records of five steps are open at most interruptions, and five is no divisor of an epoch.
    config.training.update({"log_every_steps": 5, "checkpoint_every_steps": 4})
    config.training.eval_every_epochs = 1
    return config


@pytest.fixture(scope="module")
def two_devices() -> Iterator[None]:
    """Let runs have two of the eight devices: Orbax saves every array in a piece for each."""
    with pytest.MonkeyPatch.context() as patch:
        two = functools.partial(parallel.make_mesh, devices=jax.devices()[:2])
        patch.setattr(parallel, "make_mesh", two)
        yield
