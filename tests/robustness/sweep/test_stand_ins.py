"""The suite "smoke" without images: for which models drawings stand in, and when not."""

import types

import pytest

from lska_jax.data.drawings import CLASS_NAMES, NOTE
from lska_jax.robustness.sweep.plan import SweepOptions, plan_cells
from lska_jax.robustness.sweep.stand_ins import with_drawings

SHUFFLED = CLASS_NAMES[::-1]


def model_of(names):
    """Return what a plan asks of a model."""
    return types.SimpleNamespace(
        class_names=names, num_classes=10, stamp=types.SimpleNamespace(name="mine")
    )


@pytest.mark.parametrize("names", [CLASS_NAMES, SHUFFLED])
def test_a_model_of_the_drawings_classes_needs_no_images(names):
    options = with_drawings(SweepOptions(suite="smoke"), [model_of(names)])
    assert (options.clean, options.clean_split, options.generate) == ("drawings", "test", True)
    assert with_drawings(options, [model_of(names)]) is options
    plan = plan_cells(options, [model_of(names)])
    assert [planned.corruption for planned in plan] == [
        None,
        *(("contrast", severity) for severity in (1, 3, 5)),
    ]
    data = plan[0].open()
    assert tuple(data.source.class_names) == names and data.note == NOTE
    assert names[data.source[0].label] == CLASS_NAMES[0]


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (None, {"suite": "smoke"}),
        (("a", "b"), {"suite": "smoke"}),
        (CLASS_NAMES, {"suite": "imagenet"}),
        (CLASS_NAMES, {"suite": "smoke,cue_conflict"}),
        (CLASS_NAMES, {"suite": "smoke", "clean": "folder:mine"}),
        (CLASS_NAMES, {"suite": "smoke", "corrupted": "mine"}),
    ],
)
def test_nothing_stands_in_for_what_is_given_or_was_not_asked_for(names, given):
    options = SweepOptions(**given)
    assert with_drawings(options, [model_of(names)]) is options


def test_without_images_the_message_names_the_drawings():
    with pytest.raises(ValueError, match="--clean drawings --clean_split test needs no data"):
        plan_cells(SweepOptions(suite="imagenet"), [model_of(CLASS_NAMES)])
