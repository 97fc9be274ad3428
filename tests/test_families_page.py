"""docs/families.md: its tables are those of the package."""

from pathlib import Path

import pytest

from benchmarks.named_models import filled, row
from lska_jax.models.table import families

PAGE = (Path(__file__).parents[1] / "docs" / "families.md").read_text()
SMALLEST = {
    "convnext": "convnext_tiny",
    "inception_next": "inception_next_atto",
    "pvt_v2": "pvt_v2_b0",
    "swin": "swin_tiny_patch4_window7_224",
    "unireplknet": "unireplknet_a",
    "van": "van_lska_tiny",
    "vit": "deit_tiny_patch16_224",
}


# Other tests register families of their own in the same process.
FAMILIES = {
    name: family for name, family in families().items() if family.network.startswith("lska_jax.")
}


def test_every_family_has_a_section():
    assert [name for name in FAMILIES if f"<!-- table: {name} -->" not in PAGE] == []


def test_every_model_has_a_row():
    models = [model for family in FAMILIES.values() for model in family.models]
    assert [model for model in models if f"\n| `{model}` | " not in PAGE] == []


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name == "van" else pytest.mark.slow) for name in SMALLEST],
)
def test_the_row_of_a_small_model_is_that_of_the_package(family):
    wanted = " | ".join(row(FAMILIES[family], SMALLEST[family]))
    assert f"\n| {wanted} |\n" in PAGE


@pytest.mark.slow
def test_every_row_is_that_of_the_package():
    # After a change: python -m benchmarks.named_models
    assert filled(PAGE) == PAGE
