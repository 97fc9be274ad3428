"""Segmentation: its loss and metrics against NumPy, a small run of it, and what it refuses."""

import functools
import json
from pathlib import Path

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_segmentation import small_segmentation, small_segmentor, write_pairs

from lska_jax import create_model
from lska_jax.data.label_maps import read_label_map
from lska_jax.data.opening_label_maps import open_label_maps
from lska_jax.data.photometric import distort, to_hsv, to_rgb
from lska_jax.models.build import array_shapes, build
from lska_jax.models.heads import backbone_config
from lska_jax.running import parallel
from lska_jax.tasks.area_metrics import Areas, absent_classes, areas_of, scores_of
from lska_jax.tasks.segmentation import Segmentation, png_of, weighted_cross_entropy
from lska_jax.training import run as building
from lska_jax.training.checkpoint.errors import CheckpointMismatch
from lska_jax.training.config_check import check_config, check_sources
from lska_jax.training.finetune import load_for_finetuning
from lska_jax.training.loop import train
from lska_jax.training.publish import publish
from lska_jax.training.state import host_state, place_state
from lska_jax.weights.export_jax import export_model
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_facts, write_model_folder
from lska_jax.weights.pretrained import arrays_of

pytestmark = pytest.mark.usefixtures("two_devices")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Folders of pairs; one image for training is cut off."""
    root = tmp_path_factory.mktemp("pairs")
    write_pairs(root, "train", 24)
    write_pairs(root, "test", 12)
    cut = root / "images" / "train" / "005.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pairs):
    workdir = tmp_path_factory.mktemp("segmentation")
    config = small_segmentation(pairs)
    check_config(config)
    check_sources(config, is_training=True)
    return workdir, train(config, workdir=workdir)


def test_pixels_without_a_label_count_in_the_mean_and_masked_rows_nowhere():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 2, 2, 4)).astype(np.float32)
    logits[2] = np.inf
    labels = rng.integers(0, 4, (3, 2, 2)).astype(np.uint8)
    labels[0, 0, 0] = 255
    weights = jnp.asarray([1 / 8, 1 / 8, 0], jnp.float32)
    value, gradient = jax.value_and_grad(weighted_cross_entropy)(
        jnp.asarray(logits), jnp.asarray(labels), weights
    )
    kept = logits[:2].astype(np.float64)
    log_probabilities = kept - np.log(np.exp(kept).sum(-1, keepdims=True))
    own = np.take_along_axis(log_probabilities, labels[:2, ..., None] % 4, -1)[..., 0]
    expected = -(own.sum() - own[0, 0, 0]) / 8
    assert float(value) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(gradient).all() and not np.asarray(gradient[2]).any()


def test_losses_of_pixels_are_weighed_by_their_class():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.standard_normal((1, 2, 2, 3)), jnp.float32)
    labels = np.array([[[0, 1], [2, 255]]], np.uint8)
    each = [
        float(weighted_cross_entropy(logits, jnp.where(labels == k, labels, 255), jnp.ones(1)))
        for k in range(3)
    ]
    weighed = weighted_cross_entropy(
        logits, jnp.asarray(labels), jnp.ones(1), class_weights=(0.2, 1.0, 3.0)
    )
    assert float(weighed) == pytest.approx(np.dot(each, (0.2, 1.0, 3.0)), rel=1e-6)


def test_adjusted_logits_are_best_at_the_probabilities_of_the_classes():
    """Of four pixels that look alike three are of class 0, whose weight is a tenth."""
    labels = jnp.asarray([[[0, 0], [0, 1]]], jnp.uint8)

    def slope(share: float, *, adjust_logits: bool) -> np.ndarray:
        logits = jnp.broadcast_to(jnp.log(jnp.array([share, 1 - share], jnp.float32)), (1, 2, 2, 2))
        loss = functools.partial(
            weighted_cross_entropy,
            labels=labels,
            weights=jnp.ones(1),
            class_weights=(0.1, 1.0),
            adjust_logits=adjust_logits,
        )
        return np.asarray(jax.grad(loss)(logits)).sum((0, 1, 2))

    np.testing.assert_allclose(slope(3 / 4, adjust_logits=True), 0, atol=1e-6)
    np.testing.assert_allclose(slope(0.3 / 1.3, adjust_logits=False), 0, atol=1e-6)


def test_adjusted_logits_want_weights(tmp_path):
    config = small_segmentation(tmp_path)
    config.segmentation.adjust_logits, config.training.class_weights = True, ""
    with pytest.raises(ValueError, match="adjust_logits=True adjusts logits by training.class_w"):
        check_config(config)


@pytest.mark.parametrize("text", ["balanced", "1,2", "1,x"])
def test_weights_that_do_not_fit_the_classes_are_refused(text, tmp_path):
    config = small_segmentation(tmp_path)
    config.training.class_weights = text
    with pytest.raises(ValueError, match=f"class_weights='{text}'"):
        check_config(config)


def test_scores_are_those_of_the_reference_over_the_whole_set():
    with np.load(golden_weights.GOLDEN / "dense" / "ade_eval.npz") as file:
        stored = dict(file)
    count = int(stored["classes"])
    total = Areas(*(np.zeros(count, np.int64) for _ in range(3)))
    for number in range(4):
        raw, predicted = stored[f"raw_label{number}"], stored[f"prediction{number}"]
        labels = np.where(raw == 0, 255, raw - 1).astype(np.uint8)
        part = areas_of(jnp.asarray(predicted), jnp.asarray(labels), num_classes=count)
        total = Areas(*map(np.add, total, map(np.asarray, part)))
    scores = scores_of(total)
    np.testing.assert_allclose(scores.iou, stored["iou"], rtol=1e-6)
    np.testing.assert_allclose(scores.accuracy, stored["acc"], rtol=1e-6)
    for ours, name in (
        (scores.mean_iou, "mIoU"),
        (scores.mean_accuracy, "mAcc"),
        (scores.all_accuracy, "aAcc"),
    ):
        assert ours == pytest.approx(float(stored[name]), rel=1e-6)
    absent = absent_classes(total, [str(number) for number in range(count)])
    assert absent == [str(number) for number in np.flatnonzero(np.isnan(stored["iou"]))]


def test_nothing_labelled_has_no_score():
    with pytest.raises(ValueError, match="No pixel was counted"):
        scores_of(Areas(*(np.zeros(2, np.int64) for _ in range(3))))


def test_colours_survive_the_way_to_hue_and_back_and_distortion_changes_them():
    levels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    back = to_rgb(*to_hsv(jnp.asarray(levels)))
    # Hue in steps of two degrees, saturation in 255 parts.
    assert np.abs(np.asarray(back) - levels).max() < 6
    images = jnp.asarray(levels.astype(np.uint8))
    drawn = [np.asarray(distort(images, jax.random.key(seed))) for seed in range(4)]
    assert any((one[0] != levels[0]).any() for one in drawn)
    assert all(one.dtype == np.uint8 for one in drawn)


@pytest.mark.slow
def test_it_trains_and_reports_its_scores(finished):
    workdir, evaluation = finished
    assert evaluation.keys() == {"eval/mIoU", "eval/mAcc", "eval/aAcc"}
    assert 0 < evaluation["eval/mIoU"] <= evaluation["eval/mAcc"] < evaluation["eval/aAcc"] < 1
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [v for line in lines for name, v in line.items() if name.endswith("loss")]
    assert losses[-1] < losses[0]
    log = (workdir / "log.txt").read_text()
    assert "Broken image left out" in log and "005.png" in log
    assert (workdir / "pictures" / "eval_predictions.png").is_file()


@pytest.mark.slow
def test_its_model_is_published_loaded_and_exported(finished, tmp_path):
    workdir, evaluation = finished
    publish(workdir, tmp_path / "folder", report=lambda line: None)
    facts = read_facts(tmp_path / "folder")
    assert facts.class_names == ("background", *map(str, range(10)))
    assert len(set(facts.class_colors)) == 11
    assert facts.source["eval/mIoU"] == evaluation["eval/mIoU"]
    assert (facts.preprocessing.crop_mode, facts.preprocessing.long_side) == ("whole", 32)
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in card
    assert "Semantic FPN on a VAN with lska" in card
    model = create_model(pretrained=tmp_path / "folder")
    model.eval()
    images = jnp.ones((1, 32, 32, 3))
    exported = export_model(model, image_size=32, platforms=("cpu",))
    np.testing.assert_allclose(exported.call(images), model(images), atol=1e-5)


def test_a_classifier_gives_its_backbone_and_what_is_not_taken_is_listed(tmp_path):
    config = small_segmentor(num_classes=11)
    classifier = create_model("van_lska_tiny", num_classes=7, **small_fields())
    facts = ModelFacts(config=classifier.config, preprocessing=classifier.preprocessing)
    write_model_folder(tmp_path / "folder", facts, arrays_of(classifier))
    model = build(config, rngs=nnx.Rngs(1))
    before = arrays_of(model)
    said = load_for_finetuning(model, tmp_path / "folder")
    after, given = arrays_of(model), arrays_of(classifier)
    taken = array_shapes(backbone_config(config))
    assert f"its backbone, {len(taken)} arrays" in said
    assert "Not taken: classifier/bias, classifier/kernel" in said
    assert "Fresh: branches" in said
    assert all(np.array_equal(after[f"backbone/{path}"], given[path]) for path in taken)
    fresh = [path for path in after if not path.startswith("backbone/")]
    assert all(np.array_equal(after[path], before[path]) for path in fresh)


def test_a_classifier_with_other_names_is_refused_and_every_one_is_listed(tmp_path):
    other = create_model("van_lka_tiny", num_classes=0, **small_fields())
    facts = ModelFacts(config=other.config, preprocessing=other.preprocessing)
    write_model_folder(tmp_path / "folder", facts, arrays_of(other))
    model = build(small_segmentor(num_classes=11), rngs=nnx.Rngs(0))
    with pytest.raises(CheckpointMismatch, match="gate/depthwise/3/kernel: missing"):
        load_for_finetuning(model, tmp_path / "folder")


def small_fields() -> dict[str, object]:
    config = small_segmentor()
    return {name: getattr(config, name) for name in ("dims", "depths", "ffn_ratios", "k")}


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 2])
def test_sharded_steps_are_those_of_one_device(pairs, fsdp):
    config = small_segmentation(pairs)
    config.training.update({"batch_size": 16, "gradient_accumulation": 2})
    config.optimizer.epsilon = 1e-2
    task = Segmentation(config)
    source = task.open_split(source=config.data.source, split="train")
    losses = []
    for devices in (1, 4):
        config.training.fsdp = min(fsdp, devices)
        mesh = parallel.make_mesh(fsdp=min(fsdp, devices), devices=jax.devices()[:devices])
        run = building.build_run(config, num_train_examples=24, mesh=mesh)
        step = building.train_program(run).compile()
        state = host_state(building.build_model(config), run.optimizer, use_ema=True)
        state, sharding = place_state(state, mesh), parallel.batch_sharding(mesh)
        for batch in task.train_batches(source, global_batch_size=16, seed=0, stop_step=3):
            del batch["index"]
            placed = parallel.to_global(batch, sharding, global_batch_size=16)
            state, metrics = step(state, placed)
            losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses[:3], losses[3:], rtol=2e-5)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_bit_for_bit(finished, pairs, tmp_path):
    from lska_jax.running.stop_signals import StopSignals
    from lska_jax.training.trainer import Interrupted
    from tests.faults.runs import what_was_lost

    class AskedAtOnce(StopSignals):
        @property
        def is_requested(self) -> bool:
            text = (tmp_path / "log.txt").read_text() if (tmp_path / "log.txt").exists() else ""
            return "epoch" in text and "Resuming" not in text

    with pytest.raises(Interrupted):
        train(small_segmentation(pairs), workdir=tmp_path, signals=AskedAtOnce())
    assert train(small_segmentation(pairs), workdir=tmp_path) == finished[1]
    assert what_was_lost(tmp_path, finished[0]) == []


def test_label_maps_are_written_in_the_ids_of_the_set(tmp_path):
    task = Segmentation(small_segmentation(tmp_path))
    for place in ("images/training", "annotations/training", "labels/training"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "b.png").write_bytes(png_of(np.array([[0, 1]])))
    maps = {0: png_of(np.array([[0, 149]]))}
    for kind, expected in (("maps", [0, 149]), ("ade20k", [1, 150])):
        source = open_label_maps(f"{kind}:{tmp_path}", split="train", num_classes=150)
        assert task.keep_label_maps({"maps": maps}, source, tmp_path) == 1
        assert read_label_map((tmp_path / "b.png").read_bytes()).tolist() == [expected]


@pytest.mark.parametrize("classes", [256, 300])
def test_more_classes_than_label_maps_tell_apart_are_refused(classes):
    config = small_segmentation(Path("somewhere"))
    config.model.num_classes = classes
    with pytest.raises(ValueError, match=f"num_classes={classes}: .* at most 255 classes"):
        check_config(config)


@pytest.mark.slow
def test_bfloat16_with_label_maps_written(pairs, tmp_path):
    config = small_segmentation(pairs)
    config.model.dtype = "bfloat16"
    evaluation = train(config, workdir=tmp_path)
    assert 0 < evaluation["eval/mIoU"] < 1
    written = list((tmp_path / "predictions").rglob("*.png"))
    assert sorted(file.name for file in written) == [f"{n:03}.png" for n in range(12)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.source": "tfds:scene_parse150"}, "not the 150 classes of the benchmark"),
        ({"data.mixup_alpha": 0.8}, "data.mixup_alpha=0.8 is for classification; set 0.0"),
        ({"segmentation.crop_size": (32,)}, r"crop_size=\(32,\) must be \(height, width\)"),
        ({"data.crop_mode": "center"}, "segmentation takes 'whole' images"),
        ({"model.head.channels": 0}, "head.channels=0 must be at least 1"),
    ],
)
def test_what_does_not_work_is_refused_before_anything_heavy_loads(change, message):
    config = small_segmentation(Path("somewhere"))
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        check_config(config)


def test_a_classifier_is_no_segmentor():
    config = small_segmentation(Path("somewhere"))
    del config.model.head
    with pytest.raises(ValueError, match="needs a model with one of the heads semantic_fpn, up"):
        check_config(config)


def test_a_segmentor_is_no_classifier():
    config = small_segmentation(Path("somewhere"))
    config.task = "classification"
    del config.segmentation
    with pytest.raises(ValueError, match="model.head.name='semantic_fpn' classifies no images"):
        check_config(config)
