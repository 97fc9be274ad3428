"""Learning from a trained network's answers, beside the labels.

A loss is (1 - w) of the labels' and w of the teacher's, on the same augmented and mixed images:

- ``soft`` (Hinton and others, arXiv 1503.02531, section 2; DeiT, arXiv 2012.12877, eq. 2):
  T^2 KL(softmax(teacher / T) || softmax(student / T)). The factor keeps the gradients of one size
  at any temperature T.
- ``hard`` (DeiT, eq. 3): the cross-entropy of the class that the teacher ranks first.

Of a student with a distillation token the teacher's part is that of this token's logits, and the
labels' part that of the class token's (DeiT, section 4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.build import abstract_model
from lska_jax.models.heads import head_of
from lska_jax.nn.functional import ModelFunctions, flat_values
from lska_jax.tasks.class_order import describe_difference, positions_in
from lska_jax.weights.model_facts import ModelFacts

KINDS = ("soft", "hard")
# What the teacher's arrays are called among the constants of a batch.
TEACHER = "teacher"


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network, for a student's images and classes.

    Attributes:
      functions: the network.
      arrays: {"params", "stats"}, by path.
      scale: of each channel, from the student's normalised images to the teacher's.
      shift: added then.
      positions: where each of the student's classes stands among the teacher's.
    """

    functions: ModelFunctions
    arrays: dict[str, dict[str, np.ndarray]]
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    positions: tuple[int, ...]

    def logits(
        self, images: Float[Array, "batch height width channels"], arrays: dict[str, Any]
    ) -> Float[Array, "batch classes"]:
        """Return the teacher's logits in the order of the student's classes.

        Args:
          images: normalised as the student's are.
          arrays: ``self.arrays`` on the devices.
        """
        scale, shift = jnp.asarray(self.scale), jnp.asarray(self.shift)
        own = images * scale[None, None, None, :] + shift[None, None, None, :]
        logits = self.functions.evaluate(arrays["params"], arrays["stats"], own)
        return jax.lax.stop_gradient(logits[:, jnp.asarray(self.positions)].astype(jnp.float32))


def make_teacher(
    facts: ModelFacts,
    arrays: dict[str, np.ndarray],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str] | None,
    num_classes: int,
    place: str,
) -> Teacher:
    """Return a trained network as a teacher.

    Args:
      facts: of its folder.
      arrays: parameters and statistics by path.
      mean: that the student's images are normalised with.
      std: the same.
      class_names: of the student, in label order; None where they are not known.
      num_classes: of the student.
      place: where the teacher is, for messages.

    Raises:
      ValueError: it is no classifier, or has other classes or channels than the student.
    """
    if head := head_of(facts.config):
        raise ValueError(
            f"The teacher {place} is no classifier but {head.title}. Give a classifier."
        )
    prepared = facts.preprocessing
    if len(prepared.mean) != len(mean):
        raise ValueError(
            f"The teacher {place} takes {len(prepared.mean)} channels, the student {len(mean)}."
        )
    names = facts.class_names
    positions = list(range(num_classes))
    if names is not None and class_names is not None:
        found = positions_in(class_names, names)
        if found is None:
            difference = describe_difference(
                class_names, names, what="the data", other_what="the teacher"
            )
            raise ValueError(f"The teacher {place} has other classes: {difference}.")
        positions = found
    elif facts.config.num_classes != num_classes:
        raise ValueError(
            f"The teacher {place} has {facts.config.num_classes} classes, the student "
            f"{num_classes}. Give a teacher that was trained on these classes."
        )
    model = abstract_model(facts.config)
    functions = ModelFunctions(model)
    stats = set(flat_values(nnx.state(model, nnx.BatchStat)))
    std_pairs = list(zip(std, prepared.std, strict=True))
    return Teacher(
        functions,
        {
            "params": {path: a for path, a in arrays.items() if path not in stats},
            "stats": {path: a for path, a in arrays.items() if path in stats},
        },
        tuple(own / theirs for own, theirs in std_pairs),
        tuple(
            (own - theirs) / of_theirs
            for own, theirs, (_, of_theirs) in zip(mean, prepared.mean, std_pairs, strict=True)
        ),
        tuple(positions),
    )


def teacher_losses(
    logits: Float[Array, "batch classes"],
    told: Float[Array, "batch classes"],
    *,
    kind: str,
    temperature: float,
) -> Float[Array, " batch"]:
    """Return the teacher's part of the loss of each example.

    Args:
      logits: the student's, float32.
      told: the teacher's, float32.
      kind: one of ``KINDS``.
      temperature: T of the soft form.
    """
    if kind == "hard":
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.argmax(told, axis=1))
    own = jax.nn.log_softmax(logits / temperature)
    theirs = jax.nn.log_softmax(told / temperature)
    return temperature**2 * jnp.sum(jnp.exp(theirs) * (theirs - own), axis=1)
