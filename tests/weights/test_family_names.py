"""Names of every family's checkpoints alike: those of published files, read back, in and out."""

import json
import re

import golden_weights
import numpy as np
import pytest
from families import RECORDS
from golden_baselines import arrays_of_config

from lska_jax.models.build import abstract_model, array_shapes, config_of
from lska_jax.models.table import load_capability, section_of
from lska_jax.weights import (
    ModelFacts,
    export_checkpoint,
    import_checkpoint,
    write_model_folder,
)
from lska_jax.weights.names.recognition import recognise
from lska_jax.weights.state_dict import name_arrays


def names_of(record):
    return load_capability(record.family, "names")


def namings_of(config, names) -> list[str]:
    """Return the namings that have every array of a network."""
    rows = names.rows[names.variant_of(config)]
    return [
        naming
        for column, naming in enumerate(names.namings)
        if all(row.names[column] is not None for row in rows)
    ]


def torch_shapes(config, naming: str = "") -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a network's checkpoint, in its order."""
    arrays = {path: np.empty(shape, np.float32) for path, shape in array_shapes(config).items()}
    return {name: array.shape for name, array in name_arrays(config, arrays, naming=naming).items()}


@pytest.mark.parametrize(
    "model",
    [
        *(model for record in RECORDS for model in record.key_lists),
        *(
            pytest.param(model, marks=pytest.mark.slow)
            for record in RECORDS
            for model in record.more_key_lists
        ),
    ],
    ids=str,
)
def test_names_shapes_and_order_are_those_of_the_checkpoint(model):
    named = torch_shapes(config_of(section_of(model)))
    assert list(named.items()) == list(golden_weights.keys(model).items())


@pytest.mark.parametrize(
    ("record", "model"),
    [pytest.param(record, model, id=model) for record in RECORDS for model in record.naming_maps],
)
def test_other_namings_are_those_of_their_files(record, model):
    listed = json.loads((golden_weights.GOLDEN / f"{model}.names.json").read_text())
    config, names = config_of(section_of(model)), names_of(record)
    for path in array_shapes(config):
        ours, _ = names.names_of(path, variant=names.variant_of(config))
        theirs = listed.pop(ours["timm"][0])
        for naming, expected in zip(("original", "hugging_face"), theirs, strict=True):
            parts = expected if isinstance(expected, list) else [expected]
            # A table without the authors' names says that they are timm's; transformers has none.
            usual = ours["timm"] if naming == "original" else (None,)
            assert list(ours.get(naming, usual)) == parts
    assert all(name.endswith("num_batches_tracked") for name in listed)


each_network = pytest.mark.parametrize(
    ("record", "fields"),
    [
        pytest.param(record, fields, id="-".join([record.family.name, *map(str, fields.values())]))
        for record in RECORDS
        for fields in ({}, *record.variants)
    ],
)


@each_network
def test_every_name_is_read_back_as_its_path(record, fields):
    # Eleven blocks in the last stage: a number of two digits.
    depths = record.narrow.get("depths", ())
    deep = {"depths": (*depths[:-1], 11)} if depths else {"depth": 11}
    config, names = record.config(**fields, **deep), names_of(record)
    variant = names.variant_of(config)
    # Blocks between the second and the last differ from them in their digit alone.
    for path in (p for p in array_shapes(config) if not re.search("blocks/[2-9]/", p)):
        for naming, parts in names.names_of(path, variant=variant)[0].items():
            for part in parts:
                own = {m.path for m in names.read(part) if m.naming == naming}
                assert own == {path}


@pytest.mark.parametrize(
    ("record", "model"),
    [
        pytest.param(r, model, id=model, marks=() if model in r.key_lists else pytest.mark.slow)
        for r in RECORDS
        for model, cost in r.costs.items()
        # A ViT and the DeiT of its size are one network, which has to be named.
        if list(r.costs.values()).count(cost) == 1
    ],
)
def test_a_named_model_is_recognised_by_its_names_and_shapes(record, model):
    config, names = config_of(section_of(model)), names_of(record)
    first: dict[tuple[str, ...], str] = {}
    for naming in namings_of(config, names):
        shapes = torch_shapes(config, naming)
        assert recognise(shapes) is names
        inferred = names.infer(shapes)
        # Where the authors' names are timm's, they are called timm's.
        assert inferred.naming == first.setdefault(tuple(shapes), naming)
        assert names.choose_config(inferred, entry=None, given={}) == config


@pytest.mark.parametrize(
    "others",
    [{}, pytest.param({"num_classes": 0, "in_channels": 1}, marks=pytest.mark.slow)],
    ids=["", "no_head"],
)
@each_network
def test_import_after_export_gives_the_same_bytes(tmp_path, record, fields, others):
    config, names = record.config(**fields, **others), names_of(record)
    prepared = abstract_model(config).preprocessing
    facts = ModelFacts(config=config, preprocessing=prepared)
    folder = write_model_folder(tmp_path / "folder", facts, arrays_of_config(config))
    for naming in namings_of(config, names):
        exported, again = tmp_path / f"{naming}.safetensors", tmp_path / naming
        export_checkpoint(folder, exported, naming=naming)
        imported = import_checkpoint(
            exported, again, report=lambda line: None, **told(record, config)
        )
        assert (imported.config, imported.preprocessing) == (config, prepared)
        first, second = (f / "model.safetensors" for f in (folder, again))
        assert second.read_bytes() == first.read_bytes()


def told(record, config) -> dict[str, object]:
    """Return what an import of a network has to be told: fields, and a model of its kind."""
    options = {field: getattr(config, field) for field in record.unseen}
    if "kind" in record.family.defaults:
        kinds = {fields["kind"]: model for model, fields in record.family.models.items()}
        options["model"] = kinds[config.kind]
    return options
