"""The checkpoints of VAN and LSKA: names, layouts, and what their shapes say.

The namings are

- ``reference``: the reference classification code of LSKA and VAN;
- ``detection``: its detection and segmentation copies;
- ``hugging_face``: VAN in transformers (LKA only).

The variant of a network is its attention.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from lska_jax.models.table import ModelEntry, Preprocessing
from lska_jax.models.van_config import (
    ATTENTION_NAMES,
    FAMILY,
    LAYER_NORM_EPSILON,
    VANConfig,
)
from lska_jax.ops.kernel_spec import DEFAULT_KERNEL_SIZE, default_dilation, kernel_spec
from lska_jax.weights.names.naming import Inferred, Names, is_unclear
from lska_jax.weights.names.rows import (
    BATCH_NORM,
    CONV,
    CONV_1X1,
    COUNTER,
    MATRIX,
    NORM,
    VECTOR,
    Layout,
    Row,
    Shape,
)
from lska_jax.weights.names.shapes import axis, block_counts, most_common, ratio_of_stage

NAMINGS = ("reference", "detection", "hugging_face")
DETECTION_LAYER_NORM_EPSILON = 1e-5
# transformers' VAN has a last LayerNorm that its forward pass never calls.
_UNUSED_BY_HUGGING_FACE = ("van.layernorm.weight", "van.layernorm.bias")

_SCALE = {"scale": ("", VECTOR)}
_BLOCK = "stages/{s}/blocks/{b}/"
_HF_STAGE = "van.encoder.stages.{s}."
_HF_BLOCK = "van.encoder.stages.{s}.layers.{b}."
_GATE = "attn.spatial_gating_unit."
_HF_GATE = "attention.attention_layer.attention."

# The gate's depth-wise steps in our order, as each naming calls them. The family has no detection
# copy of LKA under names of its own: it keeps the reference's.
_GATE_STEPS: dict[str, tuple[tuple[str, str, str | None], ...]] = {
    "lska": (
        ("conv0h", "DW_conv_h", None),
        ("conv0v", "DW_conv_v", None),
        ("conv_spatial_h", "DW_D_conv_h", None),
        ("conv_spatial_v", "DW_D_conv_v", None),
    ),
    "lka": (
        ("conv0", "conv0", "depth_wise"),
        ("conv_spatial", "conv_spatial", "depth_wise_dilated"),
    ),
    "lska_trivial": (("conv0h", "DW_conv_h", None), ("conv0v", "DW_conv_v", None)),
    "lka_trivial": (("conv0", "conv0", None),),
}


def _in_block(
    path: str,
    leaves: Mapping[str, tuple[str, Layout]],
    name: str,
    hugging_face: str | None,
    *,
    detection: str = "",
) -> Row:
    """Return a row of a block; its detection name is mostly the reference's."""
    names = (
        "block{S}.{b}." + name,
        "blocks{S}.{b}." + (detection or name),
        None if hugging_face is None else _HF_BLOCK + hugging_face,
    )
    return Row(_BLOCK + path, leaves, names)


def _rows(attention: str) -> list[Row]:
    """Return the whole table of one attention, in the order of the reference's state_dict."""
    embedding = "stages/{s}/patch_embedding/"
    hf_embedding = _HF_STAGE + "embeddings."
    return [
        Row(
            embedding + "projection",
            CONV,
            ("patch_embed{S}.proj", "patch_embed{S}.projection", hf_embedding + "convolution"),
        ),
        Row(
            embedding + "norm",
            BATCH_NORM,
            ("patch_embed{S}.norm", "patch_embed{S}.norm", hf_embedding + "normalization"),
        ),
        _in_block("scale_1", _SCALE, "layer_scale_1", "attention_scaling.weight"),
        _in_block("scale_2", _SCALE, "layer_scale_2", "mlp_scaling.weight"),
        _in_block("norm_1", BATCH_NORM, "norm1", "pre_normomalization"),
        _in_block("attention/proj_in", CONV_1X1, "attn.proj_1", "attention.pre_projection.conv"),
        *(
            _in_block(
                f"attention/gate/depthwise/{step}",
                CONV,
                _GATE + reference,
                hugging_face and _HF_GATE + hugging_face,
                detection=_GATE + detection,
            )
            for step, (reference, detection, hugging_face) in enumerate(_GATE_STEPS[attention])
        ),
        _in_block("attention/gate/pointwise", CONV_1X1, _GATE + "conv1", _HF_GATE + "point_wise"),
        _in_block("attention/proj_out", CONV_1X1, "attn.proj_2", "attention.post_projection"),
        _in_block("norm_2", BATCH_NORM, "norm2", "post_normalization"),
        _in_block("ffn/expand", CONV_1X1, "mlp.fc1", "mlp.in_dense"),
        _in_block(
            "ffn/depthwise",
            CONV,
            "mlp.dwconv.dwconv",
            "mlp.depth_wise",
            detection="mlp.dwconv",
        ),
        _in_block("ffn/project", CONV_1X1, "mlp.fc2", "mlp.out_dense"),
        Row("stages/{s}/norm", NORM, ("norm{S}", "norm{S}", _HF_STAGE + "normalization")),
        Row("classifier", MATRIX, ("head", "head", "classifier")),
    ]


_PREPROCESSING_NOTES = {
    "reference": (
        "reference",
        "Preprocessing: mean = std = 0.5 and crop 0.9, the reference's own; ImageNet's mean and "
        "std would cost accuracy silently.",
    ),
    "backbone": (
        "imagenet",
        "PLEASE NOTE - preprocessing: ImageNet's mean and std, as recipes for detection and "
        "segmentation have them. A backbone as it came from classification was trained with 0.5: "
        "--preprocessing reference.",
    ),
    "detection": (
        "reference",
        "PLEASE NOTE - preprocessing: mean = std = 0.5 and crop 0.9, since the file has a "
        "classifier: that is the reference's own. Recipes for detection and segmentation have "
        "ImageNet's: --preprocessing imagenet.",
    ),
    "hugging_face": (
        "reference",
        "PLEASE NOTE - preprocessing: mean = std = 0.5 and crop 0.9, with which these weights were "
        "trained. The config beside Hugging Face's copies states ImageNet's mean and std and crop "
        "0.875 for the same weights; with those they lose accuracy without any error. To take them "
        "all the same: --preprocessing imagenet.",
    ),
}


class VANNames(Names):
    """VAN's checkpoints, whose shapes show attention, k and every size."""

    def variant_of(self, config: VANConfig) -> str:
        """Return the attention.

        Raises:
          ValueError: the stages have different ones.
        """
        if isinstance(config.attention, tuple):
            raise ValueError(
                f"PyTorch's code of the family has one attention in all stages, this model "
                f"{', '.join(config.attention)}: there are no names for it. A model folder and "
                "lska-jax export DIR OUT.jaxexport keep it."
            )
        return config.attention

    def infer(self, shapes: Mapping[str, Shape]) -> Inferred:
        """Read attention, k and every size off a checkpoint; None where shapes do not show it.

        A dilation other than the reference's for its k is no part of the answer: exchanged kernels
        look like one.
        """
        by_path, naming = self.by_path(shapes)
        attention = self._attention(shapes)
        depths = block_counts(by_path)
        fields: dict[str, Any] = {
            "depths": depths,
            "dims": tuple(_channels(by_path, stage) for stage in range(len(depths))),
            "attention": attention,
            "in_channels": axis(by_path, "stages/0/patch_embedding/projection/kernel", 1),
            "num_classes": axis(by_path, "classifier/kernel", 0)
            or axis(by_path, "classifier/bias", 0)
            or 0,
        }
        fields["ffn_ratios"] = tuple(
            ratio_of_stage(by_path, stage, "/ffn/expand/kernel", channels)
            for stage, channels in enumerate(fields["dims"])
        )
        if attention:
            fields["k"], fields["kernel_sizes"] = _kernel_size(by_path, attention)
        return Inferred(fields, naming)

    def choose_config(
        self, inferred: Inferred, *, entry: ModelEntry | None, given: Mapping[str, Any]
    ) -> VANConfig:
        """Return the config that a file has to fit: what was asked for, completed by its shapes."""
        shown = inferred.fields
        names: tuple[str, ...] = ("num_classes", "in_channels")
        if entry is None:
            names += ("attention", "dims", "depths", "ffn_ratios")
        fields = {name: shown[name] for name in names} | dict(entry.fields if entry else {})
        fields["in_channels"] = fields["in_channels"] or 3
        unclear = [name for name, value in fields.items() if is_unclear(value)]
        if unclear:
            raise ValueError(
                f"The file does not show the network's {', '.join(unclear)}: arrays are missing or "
                "have impossible shapes. Pass --model to see every one listed."
            )
        is_trivial = fields["attention"].endswith("_trivial")
        dilation, k = given.get("dilation"), given.get("k")
        if dilation is not None and is_trivial:
            raise ValueError(f"{fields['attention']} has no dilation, got --dilation {dilation}.")
        if k is None:
            k = _k_of_shapes(shown, dilation=dilation, has_model=entry is not None)
        usual = DETECTION_LAYER_NORM_EPSILON if inferred.naming == "detection" else None
        epsilon = {"layer_norm_epsilon": usual} if usual else {}
        others = {name: v for name, v in given.items() if name not in ("k", "dilation")}
        kernel = {"k": k, "dilation": dilation}
        return VANConfig(**{**fields, **kernel, **epsilon, **others})

    def usual_preprocessing(self, naming: str, config: VANConfig) -> tuple[str, str]:
        """Return what such weights were trained with: mostly not what is written beside them."""
        is_backbone = naming == "detection" and not config.num_classes
        return _PREPROCESSING_NOTES["backbone" if is_backbone else naming]

    def import_notes(self, naming: str, config: VANConfig) -> list[str]:
        """Return the epsilon of detection copies, which differs from the reference's."""
        if naming != "detection":
            return []
        return [f"LayerNorm epsilon {config.layer_norm_epsilon:g}, that of these copies."]

    def export_notes(self, naming: str, config: VANConfig) -> list[str]:
        """Return what no array shows: the epsilon and the stride of the first convolution."""
        notes = []
        usual = DETECTION_LAYER_NORM_EPSILON if naming == "detection" else LAYER_NORM_EPSILON
        if config.layer_norm_epsilon != usual:
            notes.append(
                f"The LayerNorm epsilon of this model is {config.layer_norm_epsilon:g}, that of "
                f"the {naming} code {usual:g}: set it there for equal outputs."
            )
        if config.stem_stride != 4:
            notes.append(
                f"The stride of the first convolution is {config.stem_stride}, the {naming} code "
                "has 4: set it there."
            )
        return notes

    def unused_arrays(self, naming: str, config: VANConfig) -> dict[str, np.ndarray]:
        """Return transformers' LayerNorm that is never called."""
        if naming != "hugging_face":
            return {}
        weight, bias = _UNUSED_BY_HUGGING_FACE
        size = config.dims[-1]
        return {weight: np.ones(size, np.float32), bias: np.zeros(size, np.float32)}

    def _attention(self, shapes: Mapping[str, Shape]) -> str | None:
        """Return the attention that most names of depth-wise steps speak for."""
        votes: Counter[str] = Counter()
        for name in shapes:
            for meaning in self.read(name):
                if len(meaning.variants) < len(self.rows):
                    votes.update(meaning.variants)
        # A cascade has the names of its trivial form and two more; ties go to the trivial form.
        ordered = ("lska_trivial", "lka_trivial", "lska", "lka")
        return max((a for a in ordered if votes[a]), key=votes.__getitem__, default=None)


def _k_of_shapes(shown: Mapping[str, Any], *, dilation: int | None, has_model: bool) -> int:
    sizes = shown.get("kernel_sizes", ())
    if shown.get("k") is not None and dilation is None:
        return shown["k"]
    if has_model and not any(sizes):
        return DEFAULT_KERNEL_SIZE
    if len(sizes) == 2 and all(sizes):
        local, dilated = sizes
        d = (local + 1) // 2
        k = d * (dilated - 1) + local
        if dilation == d:
            return k
        raise ValueError(
            f"The file has kernels of size {local}, then {dilated}, which is no cascade of the "
            f"reference: it would be k={k} with dilation {d}"
            f"{'' if dilation is None else f', asked for was {dilation}'}. Exchanged kernels look "
            f"like this. If they are meant: --k {k} --dilation {d}."
        )
    raise ValueError(
        f"The file does not show k: its large kernels have the sizes {sizes}. Pass --model and --k "
        "to see every array that does not fit."
    )


def _channels(by_path: Mapping[str, Shape], stage: int) -> int | None:
    places = (
        "patch_embedding/projection/kernel",
        "patch_embedding/norm/scale",
        "norm/scale",
        "patch_embedding/projection/bias",
    )
    found = (axis(by_path, f"stages/{stage}/{place}", 0) for place in places)
    return next((channels for channels in found if channels), None)


def _kernel_size(
    by_path: Mapping[str, Shape], attention: str
) -> tuple[int | None, tuple[int, ...]]:
    """Return k, or None where no k has these kernels, and the sizes that most kernels have."""
    steps = {"lska": (0, 2), "lka": (0, 1), "lska_trivial": (0,), "lka_trivial": (0,)}[attention]
    sizes = tuple(
        most_common(
            # Either axis: of an exchanged pair of 1-D kernels the size is right all the same.
            max(shape[2:])
            for path, shape in by_path.items()
            if path.endswith(f"/attention/gate/depthwise/{step}/kernel") and len(shape) == 4
        )
        or 0
        for step in steps
    )
    if attention.endswith("_trivial"):
        return (sizes[0] if sizes[0] % 2 else None), sizes
    local, dilated = sizes
    dilation = (local + 1) // 2
    k = dilation * (dilated - 1) + local
    if k < 1 or dilation != default_dilation(k):
        return None, sizes
    try:
        spec = kernel_spec(k)
    except ValueError:
        return None, sizes
    return (k if (spec.local_size, spec.dilated_size) == sizes else None), sizes


NAMES = VANNames(
    FAMILY,
    namings=NAMINGS,
    rows={attention: _rows(attention) for attention in ATTENTION_NAMES},
    ignored=(COUNTER, *_UNUSED_BY_HUGGING_FACE),
    # transformers' model without a classifier has no "van." in front.
    aliases={"encoder.stages.": "van.encoder.stages.", "layernorm.": "van.layernorm."},
    preprocessings={
        "reference": FAMILY.preprocessing,
        # The mean and std of ImageNet's pixels, and the crop that Hugging Face's copies state.
        "imagenet": Preprocessing(
            mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=0.875
        ),
    },
)
