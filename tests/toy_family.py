"""A family of its own in one file: everything that lska_jax asks of one, and nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from lska_jax.models.checks import check_computation, check_counts
from lska_jax.models.config import NetworkConfig
from lska_jax.models.maps import named_maps
from lska_jax.models.network import Network, make_classifier
from lska_jax.models.table import Family, Preprocessing, register_family
from lska_jax.weights.names.naming import Names
from lska_jax.weights.names.rows import CONV, MATRIX, Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(NetworkConfig):
    width: int = 8


class Toy(Network):
    """A convolution and a linear classifier."""

    def __init__(self, config: ToyConfig, *, rngs: nnx.Rngs):
        super().__init__(config)
        self.stem = nnx.Conv(config.in_channels, config.width, (3, 3), strides=2, rngs=rngs)
        self.classifier = make_classifier(config.width, config, rngs=rngs)

    def features(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> tuple[jax.Array, ...]:
        return named_maps({"map": jax.nn.relu(self.stem(jnp.asarray(images, self.config.dtype)))})


FAMILY = Family(
    name="toy",
    config=ToyConfig,
    models={"toy_small": {"width": 8}, "toy_large": {"width": 16}},
    network="toy_family:Toy",
    check=lambda fields: [*check_counts(fields, ["width"], low=1), *check_computation(fields)],
    describe=lambda config: f"a toy of width {config.width}, {config.num_classes} classes",
    summary=lambda config: "A toy, for lska_jax.",
    stem="stem/kernel",
    head=("classifier/kernel", "classifier/bias"),
    preprocessing=Preprocessing(image_size=16),
    names="toy_family:NAMES",
)
NAMES = Names(
    FAMILY,
    namings=("torch",),
    rows={"": [Row("stem", CONV, ("conv",)), Row("classifier", MATRIX, ("fc",))]},
)
register_family(FAMILY)
