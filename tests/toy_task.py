"""A task without classes: where in an image the brightness lies.

``python tests/toy_task.py WORKDIR`` trains it, for tests that kill a real process.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from small_runs import small_config
from toy_family import FAMILY as FAMILY

from lska_jax.data.augment import EvalTransform, TrainTransform
from lska_jax.data.digits import DigitsSource
from lska_jax.data.examples import Field
from lska_jax.data.mixing import normalise
from lska_jax.data.sources import BrokenImage
from lska_jax.tasks.table import TaskEntry, register_task
from lska_jax.tasks.task import Best, Task
from lska_jax.training.config import model_section
from lska_jax.training.loop import train

BROKEN = 5


class CentreReader:
    """Reads an image and its centre of brightness, (row, column) in [0, 1]; one is broken."""

    def __init__(self, transform):
        size = transform.image_size
        self.fields = {
            "image": Field((size, size, 1), np.uint8),
            "centre": Field((2,), np.float32, fill=np.inf),
        }
        self._transform = transform

    def __call__(self, example, *rng):
        image = self._transform(example.image, *rng)
        light = image[..., 0] / max(int(image.sum(dtype=int)), 1)
        if int(example.image.sum(dtype=int)) % 311 == BROKEN:
            raise BrokenImage("the toy cannot bear its brightness")
        places = np.arange(len(light)) / len(light)
        return {"image": image, "centre": [light.sum(1) @ places, light.sum(0) @ places]}


class BrightnessCentre(Task):
    """Regression of two coordinates; the metric is their mean distance, lower is better."""

    best = Best("distance", is_highest=False)

    def open_split(self, *, source, split):
        return DigitsSource(split)

    def train_reader(self):
        return CentreReader(TrainTransform(image_size=8, channels=1, crop="padded", pad=2))

    def eval_reader(self):
        return CentreReader(EvalTransform(image_size=8, channels=1, crop_pct=1.0))

    def prepare(self, batch, key):
        count = jnp.maximum(jnp.sum(batch["mask"], dtype=jnp.float32), 1.0)
        return batch | {"weight": batch["mask"] / count}, key

    def loss(self, functions, params, stats, examples, key):
        images = normalise(examples["image"], mean=(0.5,), std=(0.5,))
        outputs, stats = functions.train(params, stats, images, key=key)
        # Zero times infinity is not zero, nor is its gradient: masked rows go before the square.
        errors = jnp.where(examples["mask"][:, None], outputs - examples["centre"], 0.0)
        return jnp.sum(examples["weight"][:, None] * errors**2), stats

    def measure(self, functions, params, stats, batch):
        images = normalise(batch["image"], mean=(0.5,), std=(0.5,))
        outputs = functions.evaluate(params, stats, images)
        errors = jnp.linalg.norm(outputs - batch["centre"], axis=1)
        return {
            "distance": jnp.sum(jnp.where(batch["mask"], errors, 0.0)),
            "count": jnp.sum(batch["mask"], dtype=jnp.int32),
        }

    def means(self, total):
        return {"distance": float(total["distance"]) / int(total["count"])}

    def keep_predictions(self, total, source, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "source.txt").write_text(source.name)
        return {"predictions": np.full((2, 3, 3), int(total["count"]) % 256, np.uint8)}


def toy_config() -> ConfigDict:
    config = small_config()
    config.task = "brightness_centre"
    config.model = model_section("toy_small", num_classes=2, in_channels=1)
    config.evaluators.seen = {"split": "train", "every_epochs": 2}
    return config


def register_toy(task=BrightnessCentre) -> None:
    entry = TaskEntry(
        build=task,
        check=lambda config, problems: None,
        inspect=lambda config, source, split: None,
        compare=lambda config, facts, where: None,
    )
    register_task("brightness_centre", entry)


register_toy()

if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    train(toy_config(), workdir=sys.argv[1])
