"""The named models: names, sizes, parameter counts, and gradients of every one of them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import VAN, create_model, list_models, model_entry
from lska_jax.models.van import Block
from lska_jax.nn import layers
from lska_jax.nn.functional import FlatArrays, assign, parameters

ATTENTIONS = ("lska", "lka", "lska_trivial", "lka_trivial")
# Widths and blocks of the four stages, from the tables of the paper and its code.
SIZES = {
    "tiny": ((32, 64, 160, 256), (3, 3, 5, 2)),
    "small": ((64, 128, 320, 512), (2, 2, 4, 2)),
    "base": ((64, 128, 320, 512), (3, 3, 12, 3)),
    "large": ((64, 128, 320, 512), (3, 5, 27, 3)),
    "b4": ((64, 128, 320, 512), (3, 6, 40, 3)),
    "b5": ((96, 192, 480, 768), (3, 3, 24, 3)),
    "b6": ((96, 192, 384, 768), (6, 6, 90, 6)),
}
# Trainable parameters at 1000 classes, measured on the reference code.
PARAMETER_COUNTS = {
    ("van_lska_tiny", 7): 4_009_800,
    ("van_lska_tiny", 11): 4_016_200,
    ("van_lska_tiny", 23): 4_029_000,
    ("van_lska_tiny", 35): 4_041_800,
    ("van_lska_tiny", 41): 4_048_200,
    ("van_lska_tiny", 53): 4_061_000,
    ("van_lska_small", 7): 13_700_520,
    ("van_lska_small", 11): 13_711_272,
    ("van_lska_small", 23): 13_732_776,
    ("van_lska_small", 35): 13_754_280,
    ("van_lska_small", 41): 13_765_032,
    ("van_lska_small", 53): 13_786_536,
    ("van_lska_base", 7): 26_221_352,
    ("van_lska_base", 11): 26_245_160,
    ("van_lska_base", 23): 26_292_776,
    ("van_lska_base", 35): 26_340_392,
    ("van_lska_base", 41): 26_364_200,
    ("van_lska_base", 53): 26_411_816,
    ("van_lka_tiny", 23): 4_105_800,
    ("van_lka_small", 23): 13_861_800,
    ("van_lka_base", 23): 26_578_472,
    ("van_lka_large", 23): 44_765_608,
    ("van_lka_b4", 23): 60_283_176,
    ("van_lka_b5", 23): 89_967_688,
    ("van_lka_b6", 23): 199_829_416,
}


class OneKey(nnx.Rngs):
    """The same key for every parameter, without a count to keep on the device."""

    def __init__(self):
        super().__init__(0)
        self.only = jax.random.key(0)

    def __getattr__(self, name: str):
        return lambda: self.only


@functools.cache
def shared_normal(shape: tuple[int, ...], std: float) -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal(shape, np.float32) * np.float32(std))


@pytest.fixture(scope="module", autouse=True)
def shared_initial_kernels():
    """Let kernels of one shape share their values, drawn once.

    All models together have 1.8 billion parameters: neither time nor memory for their own.
    """

    def shared(kernel_height: int, kernel_width: int, features_per_group: int):
        std = math.sqrt(2 / (kernel_height * kernel_width * features_per_group))
        return lambda key, shape, dtype: shared_normal(tuple(shape), std)

    patch = pytest.MonkeyPatch()
    patch.setattr(layers, "fan_out_normal", shared)
    yield
    patch.undo()
    shared_normal.cache_clear()


def build(name: str, **config) -> VAN:
    return create_model(name, rngs=OneKey(), **config)


def count_parameters(model: VAN) -> int:
    return sum(parameter.size for parameter in parameters(model).values())


def compiled_once(call):
    """Return a module's call, compiled once for all modules of the same structure."""

    @functools.partial(jax.jit, static_argnums=0)
    def run(graph, state, x):
        module = nnx.merge(graph, state)
        return call(module, x), nnx.state(module, nnx.BatchStat)

    def compiled(module, x, *_):
        out, statistics = run(*nnx.split(module), x)
        nnx.update(module, statistics)
        return out

    return compiled


@pytest.fixture(scope="module")
def quick_modules():
    """Compile each kind of module once, whatever the number of blocks and models.

    A jitted B6 would unroll its 108 blocks, and op by op it takes as long.
    """
    patch = pytest.MonkeyPatch()
    for module in (Block, layers.BatchNorm, layers.LayerNorm):
        patch.setattr(module, "__call__", compiled_once(module.__call__))
    yield
    patch.undo()


@pytest.mark.parametrize("name", list_models())
def test_every_model_has_its_maps_blocks_and_logits(name, quick_modules):
    dims, depths = SIZES[name.rsplit("_", 1)[1]]
    model = build(name, num_classes=10)
    assert [len(stage.blocks) for stage in model.stages] == list(depths)

    def run(images: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        maps = nnx.clone(model).features(images)
        return maps, model.head(maps[-1])

    maps, logits = jax.eval_shape(run, jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32))
    assert [stage.shape for stage in maps] == [
        (4, side, side, channels) for side, channels in zip((16, 8, 4, 2), dims, strict=True)
    ]
    assert logits.shape == (4, 10)


# A size is nothing but widths and depths, so one size of all widths and every attention of one
# size take part, in bfloat16 what differs in its steps.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(f"van_lska_{size}", "float32") for size in ("tiny", "small", "b5", "b6")]
    + [(f"van_{attention}_tiny", "float32") for attention in ATTENTIONS[1:]]
    + [(f"van_{attention}_tiny", "bfloat16") for attention in ("lska", "lka_trivial")],
)
def test_maps_logits_and_gradients(name, dtype, quick_modules):
    size = name.rsplit("_", 1)[1]
    dims, depths = SIZES[size]
    model = build(name, num_classes=10, dtype=jnp.dtype(dtype))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((4, 16, 16, 3)), jnp.float32)
    targets = jax.nn.one_hot(jnp.arange(4), 10)
    seen = {}

    def loss(params: FlatArrays) -> jax.Array:
        trained = nnx.clone(model)
        assign(trained, params)
        maps = trained.features(images)
        logits = trained.head(maps[-1])
        seen.update(maps=maps, logits=logits)
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), -1))

    gradients = jax.grad(loss)(parameters(model))
    assert [stage.shape for stage in seen["maps"]] == [
        (4, side, side, channels) for side, channels in zip((4, 2, 1, 1), dims, strict=True)
    ]
    assert seen["logits"].shape == (4, 10) and seen["logits"].dtype == jnp.float32
    blocks = {path.split("/scale_1")[0] for path in gradients if "/scale_1" in path}
    assert len(blocks) == sum(depths)
    host = {path: np.asarray(gradient) for path, gradient in gradients.items()}
    assert not [path for path, gradient in host.items() if not np.isfinite(gradient).all()]
    kernels = [path for path in host if path.endswith("kernel")]
    assert not [path for path in kernels if not host[path].any()]


@pytest.mark.parametrize(("name", "k"), PARAMETER_COUNTS)
def test_parameter_counts_are_those_of_the_reference(name, k):
    assert count_parameters(build(name, k=k)) == PARAMETER_COUNTS[name, k]


def test_the_separable_forms_have_fewer_parameters_than_the_square_ones():
    counts = {a: count_parameters(build(f"van_{a}_tiny")) for a in ATTENTIONS}
    assert counts["lska"] < counts["lska_trivial"] < counts["lka"] < counts["lka_trivial"]


def test_every_attention_is_registered_in_every_size():
    assert sorted(list_models()) == sorted(f"van_{a}_{s}" for a in ATTENTIONS for s in SIZES)


@pytest.mark.parametrize(
    ("pattern", "count"), [("van_*", 28), ("van_lska_*", 14), ("*_tiny", 4), ("resnet*", 0)]
)
def test_models_are_listed_by_pattern(pattern, count):
    assert len(list_models(pattern)) == count


@pytest.mark.parametrize("name", list_models())
def test_every_model_carries_its_preprocessing(name):
    preprocessing = model_entry(name).preprocessing
    # The reference's classification models were trained with 0.5, not with ImageNet's mean.
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    assert preprocessing.image_size == 224
    assert preprocessing.crop_pct == 0.9
    assert preprocessing.interpolation == "bicubic"


@pytest.mark.parametrize(
    ("unknown", "suggestion"),
    [
        ("van_lska_tny", "van_lska_tiny"),
        ("van-lka-base", "van_lka_base"),
        ("lska_b6", "van_lska_b6"),
    ],
)
def test_an_unknown_name_suggests_the_closest(unknown, suggestion):
    with pytest.raises(ValueError, match=f"Unknown model '{unknown}'.*{suggestion}"):
        create_model(unknown)


def test_a_name_like_no_other_points_to_the_list():
    with pytest.raises(ValueError, match="Unknown model 'resnet50'. See lska_jax.list_models()"):
        create_model("resnet50")


def test_a_field_that_the_config_does_not_have_is_a_type_error():
    with pytest.raises(TypeError, match="drop_path"):
        create_model("van_lska_tiny", drop_path=0.1)


def test_any_part_of_the_config_can_be_replaced():
    model = build(
        "van_lka_small", k=35, dilation=2, in_channels=1, drop_path_rate=0.2, stem_stride=2
    )
    config = model.config
    assert (config.attention, config.k, config.dilation, config.in_channels) == ("lka", 35, 2, 1)
    assert (config.drop_path_rate, config.stem_stride) == (0.2, 2)
    assert config.dims == SIZES["small"][0]


def test_the_given_rngs_decide_the_parameters():
    def kernel(rngs: nnx.Rngs | None) -> np.ndarray:
        sizes = {"dims": (2,), "depths": (1,), "ffn_ratios": (1,), "num_classes": 3, "k": 7}
        model = create_model("van_lska_tiny", rngs=rngs, **sizes)
        return np.asarray(model.classifier.kernel[...])

    np.testing.assert_array_equal(kernel(None), kernel(nnx.Rngs(0)))
    assert np.any(kernel(None) != kernel(nnx.Rngs(1)))
