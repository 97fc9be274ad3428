"""The README.md of a model folder."""

import json
from typing import Any

from lska_jax.models.heads import head_of
from lska_jax.models.table import family_of
from lska_jax.weights.model_facts import ModelFacts

_SHARES = {"eval/top1": "Top-1", "eval/top5": "Top-5"}
_STORED_AS = "{}, one-dimensional arrays float32; read as float32. Scores are from before rounding"
_PIPELINES = {"segmentation": "image-segmentation", "detection": "object-detection"}


def write_card(
    facts: ModelFacts,
    *,
    weights_sha256: str,
    folder_name: str,
    dtype: str = "float32",
    about: str = "",
) -> str:
    """Return the model card of a folder: what the model is, how to load it, where it comes from.

    Args:
      facts: about the model.
      weights_sha256: of model.safetensors.
      folder_name: the folder's name, the card's title.
      dtype: in which the weights are stored.
      about: Markdown of whoever published it, which stands below the table.
    """
    config, prepared = facts.config, facts.preprocessing
    family = family_of(config)
    head = head_of(config)
    task = _PIPELINES[head.task] if head else "image-classification"
    task = task if config.num_classes else "image-feature-extraction"
    resized = int(prepared.image_size / prepared.crop_pct)
    sides = "both sides" if prepared.crop_mode == "squash" else "short side"
    image = f"{sides} {resized} {prepared.interpolation}, centre crop {prepared.image_size}"
    if prepared.crop_mode == "whole":
        limits = f"{prepared.image_size} x {prepared.long_side}"
        image = f"whole, within {limits} pixels either way, {prepared.interpolation}"
    rows = {
        "Model": facts.description,
        "Mean": ", ".join(f"{value:g}" for value in prepared.mean),
        "Std": ", ".join(f"{value:g}" for value in prepared.std),
        "Image": image,
        "Licence of the weights": facts.license,
        "SHA-256 of model.safetensors": weights_sha256,
        **({} if dtype == "float32" else {"Stored as": _STORED_AS.format(dtype)}),
        **{_title(name): _shown(name, value) for name, value in facts.source.items()},
    }
    table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())
    return f"""---
license: {json.dumps(facts.license)}
library_name: lska_jax
pipeline_tag: {task}
tags: [lska_jax, jax, flax, {family.name}]
---

# {_cell(folder_name)}

{family.summary(config)}

```python
from lska_jax import create_model

model = create_model(pretrained="{_cell(folder_name)}")  # this folder, or its hub id
model.eval()
model.preprocessing  # mean, std, size and crop that the weights were trained with
```

On files: `lska-jax predict {_cell(folder_name)} image.jpg`.

| | |
|---|---|
{table}

The mean and std above belong to these weights. Others give plausible pictures of wrong accuracy.
{chr(10) + about.strip() + chr(10) if about.strip() else ""}"""


def _title(name: str) -> str:
    if name in _SHARES:
        return f"{_SHARES[name]}, of the evaluation split"
    return name.replace("_", " ").capitalize().replace("sha256", "SHA-256")


def _shown(name: str, value: Any) -> str:
    if name in _SHARES and isinstance(value, float):
        return f"{100 * value:.2f} %"
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    """Keep a text from breaking out of its table cell or code."""
    return " ".join(str(text).replace("|", "\\|").replace("`", "'").split()) or "-"
