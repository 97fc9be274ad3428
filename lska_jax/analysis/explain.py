"""``lska_jax.explain``: pictures of what a model sees, their arrays, and one page of it all."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.analysis import explain_pictures as drawing
from lska_jax.analysis.attention_maps import (
    GATE_SOURCE,
    ROLLOUT_SOURCE,
    attention_rollout,
    gate_maps,
)
from lska_jax.analysis.gradcam import SOURCE as GRADCAM_SOURCE
from lska_jax.analysis.gradcam import gradcam
from lska_jax.analysis.occlusion import SOURCE as OCCLUSION_SOURCE
from lska_jax.analysis.occlusion import occlusion_map
from lska_jax.analysis.photos import LoadedModel, Photo, load_model, read_photos
from lska_jax.analysis.receptive_field import SOURCE as FIELD_SOURCE
from lska_jax.analysis.receptive_field import Extent, extents, receptive_field
from lska_jax.data.class_folders import file_stem, readable
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.robustness.report.drawing import Picture
from lska_jax.robustness.report.html_page import document, figures, pairs
from lska_jax.running.compilation_cache import keep_in_running_process
from lska_jax.running.whole_file import check_writable, write_whole

METHODS = ("gradcam", "occlusion", "gates", "rollout", "receptive_field")
PAGE = "explain.html"
ARRAYS = "explain.npz"
TABLE = "receptive_field.csv"
_FIELD_CAPTION = (
    "P, the effective receptive field: the gradient of the sum over channels of relu(map) at the "
    "map's centre with respect to the image, negative values set to 0, summed over colours, mean "
    "over {images}. Squares, with the side in pixels: the smallest centred one that holds 20, 30, "
    "50 and 99 % of A = log10(P + 1). {source}."
)


def explain(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    out: str | Path,
    methods: Sequence[str] | None = None,
    label: int | str | None = None,
    compare: Sequence[str | Path] = (),
    image_size: int | None = None,
    max_image_pixels: int = MAX_PIXELS,
    compilation_cache: str | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Write what a model looks at in photos, and how far it sees.

    ``out`` then holds a PNG for each photo and method, ``receptive_field.csv``, every array in
    ``explain.npz``, and ``explain.html``, which shows all pictures and needs nothing beside it.

    Args:
      model: a model folder, a run, a step of it, a checkpoint file, a Hub id, a weight tag, or
        "cifar10", the model that comes with the package.
      images: image files.
      out: folder to write, made if missing; files of the same names are replaced.
      methods: of ``METHODS``; None is all that the model has.
      label: the class that Grad-CAM and occlusion are of, a number or a name; None takes the most
        probable one of each photo.
      compare: other models whose receptive fields are drawn beside this one's.
      image_size: side of the images in place of that of the model's preprocessing.
      max_image_pixels: a photo that declares more is broken.
      compilation_cache: folder that keeps compiled programs, "off", or None for the usual one.
      report: receives what is going on, one line each.

    Returns:
      The path of ``explain.html``.

    Raises:
      ValueError: an unknown method or class, one that the model has not, or no image.
      OSError: a place that cannot be read or written.
    """
    if unknown := sorted(set(methods or ()) - set(METHODS)):
        raise ValueError(f"Unknown methods {unknown}; allowed: {', '.join(METHODS)}.")
    if not images:
        raise ValueError("There is no image; give at least one.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    # Before the work, which takes minutes: a place that cannot be written costs none.
    for name in (PAGE, ARRAYS, TABLE):
        check_writable(out / name)
    keep_in_running_process(compilation_cache)
    load = functools.partial(
        load_model, image_size=image_size, max_image_pixels=max_image_pixels, report=report
    )
    loaded = load(model)
    photos = read_photos(images, loaded)
    work = _Explanation(loaded, photos, _label_of(label, loaded.class_names))
    for method in methods or _methods_of(loaded, is_comparing=bool(compare)):
        report(f"{loaded.name}: {method} ...")
        getattr(work, method)()
    if compare:
        others = [load(place) for place in compare]
        work.growth(others, images, report=report)
    return work.write(out)


class _Explanation:
    """Pictures and arrays of one model, method by method."""

    def __init__(self, loaded: LoadedModel, photos: Sequence[Photo], label: int | None):
        self._loaded, self._photos, self._label = loaded, photos, label
        self._inputs = loaded.normalise(np.stack([photo.pixels for photo in photos]))
        # Two photos may have the same name.
        self._names = [
            f"{number:02}_{file_stem(one.path.stem)}" for number, one in enumerate(photos, 1)
        ]
        self._pictures: list[Picture] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._extents: dict[str, dict[str, list[Extent]]] = {}
        self._rows: list[tuple[Any, ...]] = []

    def gradcam(self) -> None:
        labels = None if self._label is None else [self._label]
        for index in range(len(self._photos)):
            found = gradcam(self._loaded.network, self._inputs[index : index + 1], labels)
            values, name = found.values[0], self._class(int(found.labels[0]))
            self._add(
                index,
                "gradcam",
                values,
                title=f"Grad-CAM: {name}",
                label="L, at least 0",
                caption=f"L = relu(sum over channels c of alpha_c A_c), A the map {found.of_map} "
                f"({_size(values)}), alpha_c the mean over its pixels of the gradient of the logit "
                f"of {name}; resized to the photo. {GRADCAM_SOURCE}.",
            )

    def occlusion(self) -> None:
        for index, image in enumerate(self._inputs):
            found = occlusion_map(self._loaded.network, image, self._label)
            name = self._class(found.label)
            self._arrays[f"{self._names[index]}/occlusion_drops"] = found.drops
            self._add(
                index,
                "occlusion",
                found.over_pixels(*image.shape[:2]),
                title=f"Occlusion: {name}, p = {found.probability:.3f}",
                label="probability lost",
                is_signed=True,
                caption=f"What the probability of {name} loses when a square of {found.window} "
                f"pixels in the mean colour hides the place, at {found.drops.size} places; the "
                f"mean over the squares that cover a pixel. {OCCLUSION_SOURCE}.",
            )

    def rollout(self) -> None:
        is_swin = hasattr(self._loaded.network, "stages")
        start = "the mean over the last stage's pixels" if is_swin else "the class token"
        merging = " A merged pixel passes on a quarter to each of its four." if is_swin else ""
        for index in range(len(self._photos)):
            found = attention_rollout(self._loaded.network, self._inputs[index : index + 1])[0]
            self._add(
                index,
                "rollout",
                found * found.size,
                title="attention rollout",
                label="times an even share",
                is_from_zero=False,
                caption=f"How {start} is made up of the {_size(found)} patches by attention "
                "alone, each patch's share over an even one: r (W + I) / 2 block by block from the "
                f"last to the first, W the mean of the heads' weights.{merging} {ROLLOUT_SOURCE}.",
            )

    def gates(self) -> None:
        for index, name in enumerate(self._names):
            found = gate_maps(self._loaded.network, self._inputs[index : index + 1])
            gates = {path: np.asarray(array[0]) for path, array in found.items()}
            self._arrays |= {f"{name}/{path}": array for path, array in gates.items()}
            means = {path: array.mean(axis=-1) for path, array in gates.items()}
            self._pictures.append(
                drawing.blocks_over_photo(
                    self._photos[index].pixels,
                    means,
                    name=f"{name}.gates",
                    title=f"{self._loaded.name}: large-kernel gates",
                    caption="What each block's large-kernel attention multiplies its input with, "
                    "the mean over channels, each block with its own colours around 0 (white); "
                    f"resized to the photo. {GATE_SOURCE}.",
                )
            )

    def receptive_field(self) -> None:
        fields = self._measure(self._loaded, self._inputs)
        self._pictures.append(
            drawing.receptive_fields(
                fields,
                self._extents[self._loaded.name],
                name="receptive_field",
                title=f"{self._loaded.name}: effective receptive field, {self._side()} pixels",
                caption=_FIELD_CAPTION.format(images=self._counted(), source=FIELD_SOURCE)
                + " Colours: P over its largest value, logarithmic.",
            )
        )

    def growth(
        self,
        others: Sequence[LoadedModel],
        images: Sequence[str | Path],
        *,
        report: Callable[[str], None],
    ) -> None:
        """Measure other models too and draw all of them."""
        if self._loaded.name not in self._extents:
            self._measure(self._loaded, self._inputs)
        sizes = [getattr(self._loaded.network.config, "k", None)]
        for other in others:
            report(f"{other.name}: receptive_field ...")
            pixels = np.stack([p.pixels for p in read_photos(images, other)])
            self._measure(other, other.normalise(pixels))
            sizes.append(getattr(other.network.config, "k", None))
        is_of_k = None not in sizes and len(set(sizes)) == len(sizes)
        self._pictures.append(
            drawing.receptive_field_growth(
                self._extents,
                [int(k) for k in sizes if k is not None] if is_of_k else None,
                name="receptive_field_growth",
                title="Side of the square that holds a share of the effective receptive field",
                caption=_FIELD_CAPTION.format(images=self._counted(), source=FIELD_SOURCE),
            )
        )

    def write(self, out: Path) -> Path:
        for picture in self._pictures:
            write_whole(out / f"{picture.name}.png", picture.png)
        file = io.BytesIO()
        np.savez_compressed(file, **self._arrays)  # type: ignore[arg-type]
        write_whole(out / ARRAYS, file.getvalue())
        if self._rows:
            write_whole(out / TABLE, _table(self._rows))
        conditions = {
            "Model": f"{self._loaded.name}, {self._loaded.network!r}",
            "Photos": ", ".join(readable(str(photo.path)) for photo in self._photos),
            "Images": f"{self._side()} x {self._side()} pixels, as its preprocessing says",
        }
        sections = [("pictures", "Pictures", figures(self._pictures))]
        title = f"What {self._loaded.name} sees"
        write_whole(out / PAGE, document(title, sections, head=pairs(conditions)))
        return out / PAGE

    def _measure(self, loaded: LoadedModel, inputs: np.ndarray) -> dict[str, np.ndarray]:
        name = loaded.name
        if name in self._extents:
            name = f"{loaded.name} {len(self._extents) + 1}"
        fields = receptive_field(loaded.network, inputs)
        self._extents[name] = {of_map: extents(field) for of_map, field in fields.items()}
        for of_map, field in fields.items():
            self._arrays[f"receptive_field/{name}/{of_map}"] = field
            plain = extents(field, is_logarithmic=False)
            for logarithmic, linear in zip(self._extents[name][of_map], plain, strict=True):
                self._rows.append((name, of_map, *logarithmic, linear.side, linear.area_ratio))
        return fields

    def _add(
        self,
        index: int,
        method: str,
        values: np.ndarray,
        *,
        title: str,
        caption: str,
        label: str,
        **colours: bool,
    ) -> None:
        name, photo = self._names[index], self._photos[index]
        self._arrays[f"{name}/{method}"] = values
        self._pictures.append(
            drawing.over_photo(
                photo.pixels,
                values,
                name=f"{name}.{method}",
                title=f"{self._loaded.name}: {title}",
                caption=caption,
                label=label,
                **colours,
            )
        )

    def _class(self, label: int) -> str:
        return f"{self._loaded.class_names[label]!r}"

    def _side(self) -> int:
        return self._inputs.shape[1]

    def _counted(self) -> str:
        count = len(self._photos)
        return f"{count} photo{'s' if count > 1 else ''} of {self._side()} x {self._side()} pixels"


def _methods_of(loaded: LoadedModel, *, is_comparing: bool) -> list[str]:
    """Return the methods that a model has; of a comparison the receptive field alone."""
    if is_comparing:
        return ["receptive_field"]
    network = loaded.network
    wanted: Mapping[str, bool] = {
        "gradcam": bool(network.config.num_classes),
        "occlusion": bool(network.config.num_classes),
        "gates": hasattr(network.config, "attention"),
        "rollout": hasattr(network, "tokens") or hasattr(network.config, "window"),
        "receptive_field": True,
    }
    return [method for method in METHODS if wanted[method]]


def _label_of(label: int | str | None, names: Sequence[str]) -> int | None:
    if label is None:
        return None
    text = str(label)
    if text in names:
        return list(names).index(text)
    matching = [n for n, name in enumerate(names) if text.lower() in name.lower().split(", ")]
    if len(matching) == 1:
        return matching[0]
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise ValueError(
        f"There is no class {label!r}; give a number from 0 to {len(names) - 1} or a name, such as "
        f"{', '.join(repr(name) for name in names[:3])}."
    )


def _size(values: np.ndarray) -> str:
    return " x ".join(map(str, values.shape))


def _table(rows: Sequence[tuple[Any, ...]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    heads = ("share", "side_of_log10", "area_ratio_of_log10", "side", "area_ratio")
    writer.writerow(("model", "map", *heads))
    writer.writerows(rows)
    return file.getvalue()
