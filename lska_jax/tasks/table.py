"""Tasks by name, and the check of each one's part of a config; nothing heavy is imported."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lska_jax.tasks import (
    classification_check,
    detection_check,
    masked_images_check,
    segmentation_check,
)

DEFAULT_TASK = "classification"
# Its last layer is no classifier, and is left behind when another task starts from it.
MASKED_IMAGES = "masked_images"


class TaskEntry(NamedTuple):
    """What is known about a task before anything heavy is imported.

    Attributes:
      build: returns the ``lska_jax.tasks.task.Task`` of a checked config; imports what it needs
        when it is called.
      check: adds a sentence for everything in the config that the task cannot work with.
      inspect: (config, source, split) -> facts of the split, ``num_examples`` at least, without
        reading an example; ValueError where it is missing.
      compare: (config, facts, where) -> ValueError where the split is not what the config says.
      section: keys of the config's group with the task's name, and their defaults; empty where the
        task checks its group on its own.
    """

    build: Callable[[ConfigDict], Any]
    check: Callable[[ConfigDict, list[str]], None]
    inspect: Callable[[ConfigDict, str, str], Any]
    compare: Callable[[ConfigDict, Any, str], None]
    section: Mapping[str, Any] = MappingProxyType({})


def _build_classification(config: ConfigDict) -> Any:
    if config.data.multi_label:
        from lska_jax.tasks.multi_label import MultiLabelClassification

        return MultiLabelClassification(config)
    from lska_jax.tasks.classification import Classification

    return Classification(config)


def _build_segmentation(config: ConfigDict) -> Any:
    from lska_jax.tasks.segmentation import Segmentation

    return Segmentation(config)


def _build_detection(config: ConfigDict) -> Any:
    from lska_jax.tasks.detection import Detection

    return Detection(config)


def _build_masked_images(config: ConfigDict) -> Any:
    from lska_jax.tasks.masked_images import MaskedImages

    return MaskedImages(config)


_TASKS = {
    DEFAULT_TASK: TaskEntry(
        _build_classification,
        check=classification_check.check_config,
        inspect=classification_check.inspect_split,
        compare=classification_check.check_facts,
    ),
    "segmentation": TaskEntry(
        _build_segmentation,
        check=segmentation_check.check_config,
        inspect=segmentation_check.inspect_split,
        compare=classification_check.check_facts,
        section=segmentation_check.DEFAULTS,
    ),
    "detection": TaskEntry(
        _build_detection,
        check=detection_check.check_config,
        inspect=detection_check.inspect_split,
        compare=classification_check.check_facts,
        section=detection_check.DEFAULTS,
    ),
    MASKED_IMAGES: TaskEntry(
        _build_masked_images,
        check=masked_images_check.check_config,
        inspect=classification_check.inspect_split,
        compare=masked_images_check.accept_any_classes,
        section=masked_images_check.DEFAULTS,
    ),
}


def register_task(name: str, entry: TaskEntry) -> None:
    """Make a task known by a name, for ``config.task``; the same name again replaces it.

    Args:
      name: what a config says.
      entry: how to check and build it.
    """
    _TASKS[name] = entry


def task_names() -> list[str]:
    """Return the names that ``config.task`` may have."""
    return list(_TASKS)


def task_entry(config: ConfigDict) -> TaskEntry:
    """Return the entry of a config's task; configs saved before there were tasks have none.

    Raises:
      ValueError: the name is unknown.
    """
    name = config.get("task", DEFAULT_TASK)
    if name not in _TASKS:
        raise ValueError(f"task={name!r} is unknown; allowed: {', '.join(_TASKS)}.")
    return _TASKS[name]


def task_section(name: str) -> Mapping[str, Any]:
    """Return the keys of a task's own group with their defaults; {} of an unknown task."""
    return _TASKS[name].section if name in _TASKS else {}
