"""Which preprocessing an imported file gets: that of its weight tag, where its model has tags."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lska_jax.models.heads import head_of
from lska_jax.models.table import Preprocessing, model_entry, named_model
from lska_jax.models.weight_tags import IMAGENET_CLASSES, WeightTag, list_tags, weights_of
from lska_jax.weights.fitting import Fitted
from lska_jax.weights.names.naming import Inferred, Names, is_unclear


class Choice(NamedTuple):
    """A preprocessing, and why.

    Attributes:
      preprocessing: of RGB images.
      note: the sentence that says which and why.
      tag: the weights that it belongs to, if they were named.
    """

    preprocessing: Preprocessing
    note: str
    tag: WeightTag | None = None


def find_weights(names: Names, inferred: Inferred, tag: str, *, model: str | None) -> WeightTag:
    """Return the weights that a tag means for a file, before its config is chosen.

    Args:
      names: the table of the file's family.
      inferred: what the file's names and shapes say.
      tag: as given; "fb_in1k" or, as messages list it, "convnext_tiny.fb_in1k".
      model: the named model that was asked for, if any.

    Raises:
      ValueError: no model that the file can be has such weights; lists those there are.
    """
    possible = [model] if model else _same_sizes(names, inferred)
    found = [w for name in possible for w in weights_of(name).values() if tag in (w.tag, w.name)]
    if len(found) > 1:
        # Of models of equal sizes, the one whose words the arrays show.
        found = [w for w in found if _agrees(inferred, model_entry(w.model).fields)] or found
    if not found:
        listed = " ".join(list_tags(name) for name in possible)
        raise ValueError(
            f"weights={tag!r} is no tag of a model that the file can be. "
            f"{listed or f'Its sizes are those of no named model of {names.family.name}.'} For "
            "other weights give --preprocessing."
        )
    return found[0]


def choose_preprocessing(
    fitted: Fitted, *, preprocessing: str | None, tag: WeightTag | None
) -> Choice:
    """Return the preprocessing of an imported file.

    Args:
      fitted: the file's network.
      preprocessing: one of the family's, asked for by name; None leaves it to the weights.
      tag: the weights that the file was said to be.

    Raises:
      ValueError: an unknown name; a tag of another number of classes; or none was given, and the
        published weights of the model want different ones.
    """
    names, config = fitted.names, fitted.config
    if preprocessing is not None:
        prepared = names.preprocessings[preprocessing]
        return Choice(prepared, f"Preprocessing: {preprocessing}, as asked for.")
    if tag is not None:
        _check_classes(tag, config.num_classes)
        return Choice(
            tag.preprocessing, f"Preprocessing of {tag.name}: {in_words(tag.preprocessing)}.", tag
        )
    # Published tags are of classifiers.
    published = [] if head_of(config) else _could_be(config)
    different = {weights.preprocessing for weights in published}
    if len(different) > 1:
        raise ValueError(
            f"{fitted.path} does not say which weights it holds, and those that it can be want "
            "different preprocessing. Pass --weights with one of these:\n  "
            + "\n  ".join(
                f"{weights.name}: {in_words(weights.preprocessing)}" for weights in published
            )
            + f"\nor, for weights of your own, --preprocessing {' or '.join(names.preprocessings)}."
        )
    if different and len(names.preprocessings) == 1:
        listed = ", ".join(weights.name for weights in published)
        note = f"Preprocessing: {in_words(published[0].preprocessing)}, that of {listed}."
        return Choice(published[0].preprocessing, note)
    usual, note = names.usual_preprocessing(fitted.naming, config)
    return Choice(names.preprocessings[usual], note)


def in_words(prepared: Preprocessing) -> str:
    """Return a preprocessing in words."""
    crop = "squashed" if prepared.crop_mode == "squash" else f"crop {prepared.crop_pct:g}"
    mean = ", ".join(f"{value:g}" for value in prepared.mean)
    std = ", ".join(f"{value:g}" for value in prepared.std)
    return f"mean {mean}, std {std}, {prepared.image_size} pixels, {crop}"


def _check_classes(tag: WeightTag, num_classes: int) -> None:
    """Refuse ImageNet's thousand for a tag of other classes, and the other way round."""
    if (
        num_classes
        and tag.num_classes != num_classes
        and (num_classes == IMAGENET_CLASSES or tag.num_classes == IMAGENET_CLASSES < num_classes)
    ):
        raise ValueError(
            f"The file has {num_classes} classes, and {tag.name} has {tag.num_classes}. "
            f"{list_tags(tag.model)}"
        )


def _could_be(config: Any) -> list[WeightTag]:
    """Return the published weights that a file of a config can be or descend from."""
    model = named_model(config)
    published = list(weights_of(model).values()) if model else []
    same = [weights for weights in published if weights.num_classes == config.num_classes]
    return same if config.num_classes and same else published


def _same_sizes(names: Names, inferred: Inferred) -> list[str]:
    return [
        name
        for name, fields in names.family.models.items()
        if _agrees(inferred, {f: v for f, v in fields.items() if not isinstance(v, str)})
    ]


def _agrees(inferred: Inferred, fields: Mapping[str, Any]) -> bool:
    shown = inferred.fields
    return all(shown[f] == v for f, v in fields.items() if f in shown and not is_unclear(shown[f]))
