"""A model as the sweep sees it: a function from images to logits, and who it is.

Model folders, Hub ids and training runs are loaded; any other JAX function is wrapped, so that
other people's models are measured by the same code.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core as jax_core
from jaxtyping import Array, Float

from lska_jax.data.augment import EvalTransform
from lska_jax.models.fold import fold_for_inference
from lska_jax.models.heads import head_of
from lska_jax.models.table import Preprocessing
from lska_jax.nn.functional import parameters
from lska_jax.robustness.cells import ModelStamp
from lska_jax.tasks.predict import eval_transform
from lska_jax.training.model_places import model_name, read_model
from lska_jax.weights.class_names import IMAGENET_CLASSES, imagenet_names, readable_names
from lska_jax.weights.pretrained import build_from_arrays

LogitsFunction = Callable[
    [Any, Float[Array, "batch height width channels"]], Float[Array, "batch classes"]
]


# What a model may be given as: see ``as_classifiers``.
Model = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model to be measured.

    Attributes:
      stamp: its name, hash and preprocessing, as they stand beside every number.
      logits: (variables, images (B, S, S, C) float32, normalised) -> logits (B, K); traceable.
      variables: arrays that ``logits`` takes, any pytree.
      preprocessing: of the images.
      num_classes: K.
      class_names: of the K classes; None where K = 1000 stands for ImageNet's, in their order.
    """

    stamp: ModelStamp
    logits: LogitsFunction
    variables: Any
    preprocessing: Preprocessing
    num_classes: int
    class_names: tuple[str, ...] | None = None

    @property
    def is_imagenet(self) -> bool:
        """Whether its classes are the 1,000 of ImageNet-1K."""
        return self.class_names is None


def as_classifiers(
    models: Model | Sequence[Model] | Mapping[str, Model],
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
) -> list[Classifier]:
    """Make classifiers of whatever models are given as; see ``lska_jax.robustness.evaluate``.

    Raises:
      TypeError: something that is no model.
    """
    named: list[tuple[str | None, Model]]
    if isinstance(models, Mapping):
        named = [(str(name), model) for name, model in models.items()]
    elif isinstance(models, list | tuple):
        named = [(None, model) for model in models]
    else:
        named = [(None, models)]
    return [_as_classifier(name, model, preprocessing, class_names) for name, model in named]


def _as_classifier(
    name: str | None,
    model: Model,
    preprocessing: Preprocessing | None,
    class_names: Sequence[str] | None,
) -> Classifier:
    if isinstance(model, Classifier):
        renamed = dataclasses.replace(model.stamp, name=name or model.stamp.name)
        return dataclasses.replace(model, stamp=renamed)
    if isinstance(model, str | Path):
        return load_classifier(model, name=name)
    if not callable(model):
        raise TypeError(
            f"{model!r} is not a model; give a model folder, a run, an nnx.Module, or a function "
            "from images to logits."
        )
    own_name = getattr(model, "__name__", type(model).__name__)
    own_preprocessing = getattr(model, "preprocessing", None) or Preprocessing()
    wrap = functools.partial(
        wrap_function,
        name=name or own_name,
        preprocessing=preprocessing or own_preprocessing,
        class_names=class_names,
    )
    if not isinstance(model, nnx.Module):
        return wrap(model)
    inference = nnx.view(
        model, deterministic=True, use_running_average=True, raise_if_not_found=False
    )
    # Random state is not used in inference, and would make another model of each copy.
    parts: Any = nnx.split(inference, nnx.RngState, ...)
    graph, random_state, variables = parts
    return wrap(
        lambda arrays, images: nnx.merge(graph, random_state, arrays)(images), variables=variables
    )


def load_classifier(
    place: str | Path, *, name: str | None = None, report: Callable[[str], None] = print
) -> Classifier:
    """Load a model folder, a Hub id, the best checkpoint of a run, or a file of the reference's.

    It is folded for inference where its family can be: the same logits with fewer operations.

    Args:
      place: where the model is.
      name: how to call it; None takes the last part of ``place``.
      report: receives remarks, one line each.

    Raises:
      FileNotFoundError: there is neither.
      ValueError: a damaged folder or file, a file that does not tell its model, a model without a
        classifier, or one that does not take RGB images.
      ImportError: a PyTorch file, and PyTorch is not installed.
    """
    name = name or model_name(place)
    facts, arrays = read_model(place, report=report)
    config = facts.config
    if head := head_of(config):
        raise ValueError(
            f"{place} is no classifier but {head.title}; lska-jax robustness measures it on its "
            "own validation images, given with --clean."
        )
    if not config.num_classes:
        raise ValueError(f"{place} has no classifier: it returns features, not classes.")
    if facts.is_multi_label:
        raise ValueError(
            f"{place} gives any number of labels an image, which have no top-1: lska-jax "
            "robustness measures their mean average precision, of a folder or run on this disk."
        )
    if config.in_channels != 3:
        raise ValueError(
            f"{place} takes images of {config.in_channels} channels; the sets are RGB. Only models "
            "with in_channels=3 can be measured."
        )
    trained = build_from_arrays(config, arrays, rngs=nnx.Rngs(0))
    # Without BatchNorm's statistics, as everywhere.
    num_parameters = sum(int(array.size) for array in parameters(trained).values())
    model = fold_for_inference(trained)
    graph, variables = nnx.split(model)
    is_imagenet = config.num_classes == IMAGENET_CLASSES and (
        facts.class_names is None or readable_names(facts.class_names) == imagenet_names()
    )
    return Classifier(
        stamp=ModelStamp(
            name=name,
            sha256=hash_arrays(arrays),
            preprocessing=describe_preprocessing(facts.preprocessing),
            facts={
                # What scores against k are drawn by, where the family has it.
                # Pictures against k need one.
                **{
                    n: getattr(config, n)
                    for n in ("attention", "k")
                    if not isinstance(getattr(config, n, ()), tuple)
                },
                "parameters": num_parameters,
            },
        ),
        logits=lambda arrays, images: nnx.merge(graph, arrays)(images),
        variables=variables,
        preprocessing=facts.preprocessing,
        num_classes=config.num_classes,
        class_names=None if is_imagenet else _named(facts.class_names, config.num_classes),
    )


def wrap_function(
    function: Callable[..., Float[Array, "batch classes"]],
    *,
    name: str,
    preprocessing: Preprocessing,
    variables: Any = None,
    class_names: Sequence[str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Classifier:
    """Make a classifier of any JAX function from images to logits.

    Args:
      function: images (B, S, S, 3) float32, normalised -> logits (B, K); or, where ``variables``
        are given, (variables, images) -> logits.
      name: how to call it.
      preprocessing: of its images.
      variables: its arrays, any pytree; passed as arguments, they are not compiled into the
        program.
      class_names: in the order of the logits; None where they are ImageNet's 1,000.
      facts: what the pictures need besides, see ``ModelStamp``.

    Raises:
      ValueError: the logits are not (B, K), or K is not the number of classes.
    """
    if class_names is not None and readable_names(class_names) == imagenet_names():
        class_names = None
    takes_variables = variables is not None
    logits: LogitsFunction = function if takes_variables else lambda _, images: function(images)
    size = preprocessing.image_size
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    try:
        traced = jax.make_jaxpr(logits)(variables, images)
        outputs = jax.eval_shape(logits, variables, images)
    except jax.errors.JAXTypeError as error:
        raise ValueError(
            f"{name} cannot be traced by JAX: {str(error).splitlines()[0]} Measure a function of "
            "jax.numpy, without NumPy and without branches on values."
        ) from error
    expected = IMAGENET_CLASSES if class_names is None else len(class_names)
    is_logits = isinstance(outputs, jax.ShapeDtypeStruct) and (
        outputs.shape == (2, expected) and jnp.issubdtype(outputs.dtype, jnp.floating)
    )
    if not is_logits:
        found = jax.tree.map(lambda array: f"{array.dtype}{list(array.shape)}", outputs)
        raise ValueError(
            f"{name}: two images give {found}; expected one floating array (2, {expected}) of "
            "logits. Pass class_names where the classes are not ImageNet's."
        )
    return Classifier(
        stamp=ModelStamp(
            name=name,
            sha256=_hash_program(traced, variables),
            preprocessing=describe_preprocessing(preprocessing),
            facts=dict(facts or {}),
        ),
        logits=logits,
        variables=variables,
        preprocessing=preprocessing,
        num_classes=expected,
        class_names=None if class_names is None else tuple(class_names),
    )


def describe_preprocessing(preprocessing: Preprocessing) -> str:
    """Return a preprocessing in words, as it stands beside every number."""
    return (
        f"{describe_transform(eval_transform(preprocessing))}, mean {preprocessing.mean}, "
        f"std {preprocessing.std}"
    )


def describe_transform(transform: EvalTransform) -> str:
    """Return the host side of a preprocessing in words."""
    resized = int(transform.image_size / transform.crop_pct)
    sides = "both sides" if transform.crop_mode == "squash" else "short side"
    return f"{sides} {resized} {transform.interpolation}, crop {transform.image_size}"


def hash_arrays(arrays: Mapping[str, Any]) -> str:
    """Return the SHA-256 of named arrays: the same for a run and the folder published from it."""
    digest = hashlib.sha256()
    for path in sorted(arrays):
        _add_array(digest, path, arrays[path])
    return digest.hexdigest()


def _named(names: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    return names or tuple(f"class {number}" for number in range(count))


def _hash_program(traced: jax_core.ClosedJaxpr, variables: Any) -> str:
    # Functions inside print their address, which is another one in every process.
    program = re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr))
    digest = hashlib.sha256(program.encode())
    for number, array in enumerate(_constants(traced)):
        _add_array(digest, f"constant {number}", array)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        _add_array(digest, jax.tree_util.keystr(path), leaf)
    return digest.hexdigest()


def _constants(part: Any) -> Iterator[Any]:
    """Yield the arrays that a program closes over, also inside the programs that it calls."""
    if isinstance(part, jax_core.ClosedJaxpr):
        yield from part.consts
        part = part.jaxpr
    if isinstance(part, jax_core.Jaxpr):
        for equation in part.eqns:
            for operand in equation.invars:
                if isinstance(operand, jax_core.Literal):
                    yield operand.val
            yield from _constants(list(equation.params.values()))
    elif isinstance(part, list | tuple):
        for item in part:
            yield from _constants(item)


def _add_array(digest: Any, name: str, array: Any) -> None:
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    host = np.asarray(array)
    digest.update(f"{name} {host.shape} {host.dtype}\n".encode())
    digest.update(np.ascontiguousarray(host).tobytes())
