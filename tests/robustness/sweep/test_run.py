"""The whole sweep on pictures whose answers are known: exact tables, resume, holes, bad input."""

import jax
import pytest
from known_models import PREPARED, picture, reader, write_pictures

from lska_jax.robustness import evaluate, load_summaries, wrap_function
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.report import terminal_table
from lska_jax.robustness.report.write import write_report
from lska_jax.robustness.sets.label_sets import imagenet_wnids, shape_classes, subset_classes
from lska_jax.robustness.sweep.plan import PlannedCell, SweepOptions, cell_transform
from lska_jax.robustness.sweep.results_file import load_results

pytestmark = pytest.mark.usefixtures("few_draws")

WNIDS = imagenet_wnids()
NAMES = ("bird", "car", "cat", "dog")


def run(models, tmp_path, *, data_root=None, **options):
    return evaluate(
        models,
        out=tmp_path / "out",
        preprocessing=PREPARED,
        data_root=str(data_root or tmp_path),
        batch_size=8,
        num_workers=0,
        **options,
    )


def values(summary):
    return {key: stamped.score.value for key, stamped in summary.scores.items()}


def test_a_model_whose_answers_are_known_gives_the_exact_table(tmp_path):
    a, b = subset_classes("imagenet_a")[:2].tolist()
    outside = next(c for c in range(1000) if c not in subset_classes("imagenet_a"))
    write_pictures(tmp_path / "imagenet" / "val", {WNIDS[a]: [a, a, b], WNIDS[outside]: [outside]})
    write_pictures(tmp_path / "imagenet-a", {WNIDS[a]: [a, outside], WNIDS[b]: [b, a]})
    write_pictures(tmp_path / "sketch", {WNIDS[0]: [0, 0, 0, 1]})
    variants = ("matched-frequency", "threshold0.7", "top-images")
    for right, variant in enumerate(variants):
        answers = [7] * (right + 1) + [8] * (3 - right)
        write_pictures(tmp_path / f"imagenetv2-{variant}-format-val", {"7": answers})
    (summary,) = run(
        {"known": reader(1000)},
        tmp_path,
        suite="imagenet,imagenet_a,imagenet_sketch,imagenet_v2",
    )
    found = values(summary)
    assert found["imagenet/top1"] == 0.75
    assert found["imagenet_a/clean_top1_200"] == pytest.approx(2 / 3)
    assert found["imagenet_a/top1"] == 0.5
    # The class outside has equal 200 logits left; the first of them is a.
    assert found["imagenet_a/top1_200"] == 0.75
    assert found["imagenet_sketch/top1"] == 0.75
    assert found["imagenet_v2/top1/matched-frequency"] == 0.25
    assert found["imagenet_v2/top1/threshold-0.7"] == 0.5
    assert found["imagenet_v2/top1/top-images"] == 0.75
    assert summary.holes == ()
    stamped = summary.scores["imagenet_sketch/top1"]
    assert (stamped.provenance, stamped.num_images) == ("official", 4)
    assert stamped.preprocessing == "short side 17 bicubic, crop 16"
    assert "incomplete: 4 of" in stamped.note


def test_shape_and_texture_are_decided_over_the_sixteen_classes(tmp_path):
    groups = shape_classes()
    folder = tmp_path / "cue-conflict" / "cat"
    folder.mkdir(parents=True)
    for number, decided in enumerate(["cat", "cat", "dog", "oven"], start=1):
        answer = int(groups[decided][0])
        (folder / f"cat{number}-dog{number}.png").write_bytes(picture(answer))
    (summary,) = run({"known": reader(1000)}, tmp_path, suite="cue_conflict")
    found = values(summary)
    assert found["cue_conflict/shape_bias"] == pytest.approx(2 / 3)
    assert found["cue_conflict/decided"] == 0.75
    assert found["cue_conflict/shape_bias/cat"] == pytest.approx(2 / 3)


def write_own(tmp_path, suffix="png"):
    """Write ten pictures of the four classes, seven of them answered rightly."""
    answers = {"bird": [0, 0, 1], "car": [1, 1], "cat": [2, 3], "dog": [3, 3, 0]}
    write_pictures(tmp_path / "own" / "test", answers, suffix=suffix)
    return f"folder:{tmp_path / 'own'}"


def own_options(tmp_path):
    return {"clean": write_own(tmp_path), "clean_split": "test", "class_names": NAMES}


def test_models_of_other_classes_are_measured_on_their_own_images(tmp_path):
    (summary,) = run(
        {"own": reader(4)},
        tmp_path,
        suite="imagenet,imagenet_c/brightness",
        generate=True,
        **own_options(tmp_path),
    )
    found = values(summary)
    assert found["clean/top1"] == 0.7
    assert "clean_c/error/brightness/5" in found
    assert summary.scores["clean_c/error/brightness/1"].provenance == "generated"
    assert not any("mean_error" in key or "mce" in key for key in found)


@pytest.mark.parametrize(("limit", "rows"), [(3, 3), pytest.param(0, 10, marks=pytest.mark.slow)])
def test_a_batch_is_not_filled_up_beyond_the_images_of_a_cell(tmp_path, limit, rows):
    seen = []

    def logits(images):
        seen.append(len(images))
        return reader(4)(images)

    options = {**own_options(tmp_path), "preprocessing": PREPARED, "num_workers": 0}
    evaluate(logits, out=tmp_path / "out", suite="imagenet", batch_size=64, limit=limit, **options)
    # Every device gets as many rows.
    assert max(seen) == -(-rows // jax.device_count()) * jax.device_count()


def test_several_models_are_measured_in_one_pass_and_named_apart(tmp_path):
    models = {"right": reader(4), "next": reader(4, shift=3)}
    first, second = run(models, tmp_path, suite="imagenet", **own_options(tmp_path))
    assert (first.model.name, second.model.name) == ("right", "next")
    assert values(first)["clean/top1"] == 0.7
    assert values(second)["clean/top1"] == pytest.approx(0.3)
    assert first.model.sha256 != second.model.sha256


def test_a_second_call_measures_nothing_again(tmp_path, capsys):
    options = {**own_options(tmp_path), "suite": "imagenet,imagenet_c/contrast", "generate": True}
    first = run({"own": reader(4)}, tmp_path, **options)
    written = (tmp_path / "out" / "results.jsonl").read_bytes()
    capsys.readouterr()
    second = run({"own": reader(4)}, tmp_path, **options)
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == written
    assert "6 of 6 cells are measured already" in capsys.readouterr().out
    assert values(first[0]) == values(second[0])


def test_a_model_that_is_added_gets_its_cells_and_leaves_the_others(tmp_path):
    options = {**own_options(tmp_path), "suite": "imagenet"}
    run({"a": reader(4)}, tmp_path, **options)
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    both = run({"a": reader(4), "b": reader(4, shift=1)}, tmp_path, **options)
    assert [summary.model.name for summary in both] == ["a", "b"]
    assert (tmp_path / "out" / "results.jsonl").read_bytes().startswith(before)


def test_a_generated_image_is_the_same_whatever_the_batch(tmp_path):
    options = {**own_options(tmp_path), "suite": "imagenet_c/gaussian_noise/5", "generate": True}
    shares = []
    for number, size in enumerate((8, 16)):
        # Noise moves the mean colour: which answers change tells the draws apart.
        (summary,) = evaluate(
            {"own": reader(4)},
            out=tmp_path / f"out{number}",
            preprocessing=PREPARED,
            batch_size=size,
            num_workers=0,
            **options,
        )
        results = load_results(tmp_path / f"out{number}" / "results.jsonl")
        shares.append([result.outcomes["top1"].tolist() for result in results.cells.values()])
    assert shares[0] == shares[1]


def test_missing_sets_are_holes_with_where_to_get_them(tmp_path):
    write_pictures(tmp_path / "sketch", {WNIDS[0]: [0]})
    (summary,) = run({"known": reader(1000)}, tmp_path, suite="imagenet_a,imagenet_sketch")
    assert [str(hole.cell) for hole in summary.holes] == ["imagenet_a"]
    assert "0.69 GB" in summary.holes[0].reason and "natural-adv" in summary.holes[0].reason
    assert values(summary)["imagenet_sketch/top1"] == 1


def test_a_hole_is_filled_once_the_set_is_there(tmp_path):
    assert run({"known": reader(1000)}, tmp_path, suite="imagenet_sketch")[0].holes
    write_pictures(tmp_path / "sketch", {WNIDS[0]: [0]})
    (summary,) = run({"known": reader(1000)}, tmp_path, suite="imagenet_sketch")
    assert not summary.holes and load_summaries(tmp_path / "out" / "results.jsonl") == [summary]


def test_a_truncated_image_is_counted_and_named(tmp_path, capsys):
    write_pictures(tmp_path / "sketch", {WNIDS[0]: [0, 0, 1]})
    broken = tmp_path / "sketch" / WNIDS[0] / "image_0.JPEG"
    broken.write_bytes(broken.read_bytes()[:45])
    (summary,) = run({"known": reader(1000)}, tmp_path, suite="imagenet_sketch")
    stamped = summary.scores["imagenet_sketch/top1"]
    assert stamped.score.value == 0.5 and stamped.num_images == 2
    assert "unreadable images: 1" in stamped.note
    assert str(broken) in capsys.readouterr().out


def test_a_cell_without_one_readable_image_is_a_hole(tmp_path):
    write_pictures(tmp_path / "sketch", {WNIDS[0]: [0]})
    (tmp_path / "sketch" / WNIDS[0] / "image_0.JPEG").write_bytes(b"no image")
    (summary,) = run({"known": reader(1000)}, tmp_path, suite="imagenet_sketch")
    assert "none of the images" in summary.holes[0].reason


def test_limit_takes_the_same_images_in_every_cell_and_is_stamped(tmp_path):
    options = {**own_options(tmp_path), "suite": "imagenet,imagenet_c/saturate", "generate": True}
    (summary,) = run({"own": reader(4)}, tmp_path, limit=6, **options)
    assert {stamped.num_images for stamped in summary.scores.values()} == {6}
    assert "--limit 6" in summary.scores["clean/top1"].note


def test_a_folder_that_is_no_class_is_a_hole_and_the_sweep_goes_on(tmp_path):
    write_pictures(tmp_path / "sketch", {WNIDS[0]: [0], "n00000000": [1]})
    write_pictures(tmp_path / "imagenet-a", {WNIDS[subset_classes("imagenet_a")[0]]: [6]})
    (summary,) = run({"known": reader(1000)}, tmp_path, suite="imagenet_sketch,imagenet_a")
    (hole,) = summary.holes
    assert str(hole.cell) == "imagenet_sketch" and "n00000000" in hole.reason
    assert "imagenet_a/top1" in summary.scores


def test_an_archive_that_cannot_be_read_is_a_hole_and_the_sweep_goes_on(tmp_path):
    write_pictures(tmp_path / "sketch", {WNIDS[0]: [0]})
    for name in ("imagenet-a.tar", "ILSVRC2012_img_val.tar"):
        (tmp_path / name).write_bytes(b"<html>not found</html>" * 100)
    (summary,) = run({"known": reader(1000)}, tmp_path, suite="imagenet_a,imagenet,imagenet_sketch")
    assert {str(hole.cell) for hole in summary.holes} == {"imagenet_a", "imagenet"}
    assert values(summary)["imagenet_sketch/top1"] == 1


def test_a_failed_start_does_not_claim_the_folder(tmp_path):
    options = {**own_options(tmp_path), "suite": "imagenet"}
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        run({"own": reader(4)}, tmp_path, frost_pictures="/nowhere", **options)
    assert run({"own": reader(4)}, tmp_path, **options)[0].scores


def test_a_folder_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    options = {**own_options(tmp_path), "suite": ["imagenet"]}
    run({"own": reader(4)}, tmp_path, **options)
    monkeypatch.chdir(tmp_path)
    run({"own": reader(4)}, tmp_path, **{**options, "clean": "folder:own"})


def test_clean_images_may_be_of_some_of_imagenets_classes(tmp_path):
    write_pictures(tmp_path / "some" / "test", {WNIDS[5]: [5, 6], WNIDS[700]: [700]})
    (summary,) = run(
        {"known": reader(1000)},
        tmp_path,
        suite="imagenet",
        clean=f"folder:{tmp_path / 'some'}",
        clean_split="test",
    )
    stamped = summary.scores["imagenet/top1"]
    assert stamped.score.value == pytest.approx(2 / 3)
    assert "incomplete: 2 of 1000 classes" in stamped.note


def test_the_same_images_in_another_order_are_drawn_together(tmp_path):
    # Loose validation images are ordered by number, class folders by class.
    truth = [int(WNIDS.index(wnid)) for wnid in ("n01751748", "n09193705", "n02105855")]
    answers = [truth[0], 1, truth[2]]
    folder = tmp_path / "imagenet-c" / "fog"
    (tmp_path / "val").mkdir()
    for number, (label, answer) in enumerate(zip(truth, answers, strict=True), start=1):
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        (tmp_path / "val" / name).write_bytes(picture(answer))
        for severity in range(1, 6):
            place = folder / str(severity) / WNIDS[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(picture(answer))
    run({"known": reader(1000)}, tmp_path, suite="imagenet,imagenet_c/fog")
    results = load_results(tmp_path / "out" / "results.jsonl")
    images = {tuple(result.outcomes["images"]) for result in results.cells.values()}
    right = {tuple(result.outcomes["top1"]) for result in results.cells.values()}
    assert len(images) == 1 and right == {(True, False, True)}


def test_an_empty_severity_folder_is_a_hole(tmp_path):
    (tmp_path / "imagenet-c" / "fog" / "3").mkdir(parents=True)
    (summary,) = run({"known": reader(1000)}, tmp_path, suite="imagenet_c/fog/3")
    assert "is empty" in summary.holes[0].reason


BAD_CALLS = [
    ({"suite": "imagenet_q"}, "no suite or image set 'imagenet_q'. Did you mean"),
    ({"suite": ""}, "names nothing"),
    ({"pixels": "zoom"}, "pixels is 'zoom'; allowed: direct, resize"),
    ({"provenance": "web"}, "provenance is 'web'"),
    ({"limit": -1}, "limit is -1"),
    ({"seed": 2**64}, "seed is 18446744073709551616"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"max_image_pixels": 0}, "max_image_pixels is 0"),
    ({"suite": "imagenet_a"}, "can only be measured for ImageNet's 1,000"),
    ({"suite": "imagenet", "clean": ""}, "name its clean images"),
    ({"suite": "imagenet_c"}, "add --generate"),
    (
        {"class_names": ("bird", "car", "cat", "cow")},
        r"only in folder:.*dog; only in the model: cow",
    ),
]


def test_the_limit_on_pixels_is_an_option_that_results_files_keep():
    options = SweepOptions(max_image_pixels=400)
    classifier = wrap_function(reader(4), name="a", preprocessing=PREPARED, class_names=NAMES)
    planned = PlannedCell(Cell("clean"), open=lambda: pytest.fail("not opened"))
    assert cell_transform(planned, classifier, options).max_pixels == 400
    assert options.settings()["max_image_pixels"] == 400
    assert "max_image_pixels" not in SweepOptions().settings()


@pytest.mark.parametrize(("change", "message"), BAD_CALLS, ids=lambda value: str(value)[:40])
def test_bad_calls_are_refused_before_anything_is_written(tmp_path, change, message):
    options = {"suite": "imagenet", **own_options(tmp_path), **change}
    if "batch_size" in change:
        with pytest.raises(ValueError, match=message):
            evaluate(reader(4), out=tmp_path / "out", preprocessing=PREPARED, **options)
        return
    with pytest.raises(ValueError, match=message):
        run({"own": reader(4)}, tmp_path, **options)


def test_a_sweep_is_extended_by_another_model_alone(tmp_path):
    options = {**own_options(tmp_path), "suite": "imagenet"}
    run({"a": reader(4)}, tmp_path, **options)
    (summary,) = run({"b": reader(4, shift=3)}, tmp_path, **options)
    assert summary.model.name == "b"
    both = load_summaries(tmp_path / "out" / "results.jsonl")
    assert [one.model.name for one in both] == ["a", "b"]
    assert [values(one)["clean/top1"] for one in both] == [0.7, pytest.approx(0.3)]


def test_ones_own_images_are_not_called_official_and_five_classes_have_no_top5(tmp_path):
    suite = "imagenet,imagenet_c/brightness,imagenet_c/contrast/3"
    options = {**own_options(tmp_path), "suite": suite, "generate": True}
    (summary,) = run({"own": reader(4)}, tmp_path, **options)
    assert summary.scores["clean/top1"].provenance == "own"
    assert not any("top5" in key for key in summary.scores)
    table = terminal_table([summary])
    assert "(own)" in table and "official files" not in table.replace("not the official files", "")
    for line in ("brightness error", "contrast 3 error"):
        assert line in table
    page = write_report([summary], tmp_path / "report").read_text().lower()
    assert "brightness" in page and "contrast 3" in page


def test_results_of_other_models_or_settings_are_not_mixed_in(tmp_path):
    options = {**own_options(tmp_path), "suite": "imagenet"}
    run({"a": reader(4)}, tmp_path, **options)
    with pytest.raises(ValueError, match="another model named 'a'"):
        run({"a": reader(4, shift=1)}, tmp_path, **options)
    with pytest.raises(ValueError, match="limit: the file has 0, asked for 3"):
        run({"a": reader(4)}, tmp_path, limit=3, **options)


def test_two_models_of_one_name_are_refused(tmp_path):
    twice = [
        wrap_function(reader(4), name="x", preprocessing=PREPARED, class_names=NAMES)
        for _ in range(2)
    ]
    with pytest.raises(ValueError, match="Two models are called x"):
        run(twice, tmp_path, suite="imagenet", **own_options(tmp_path))


def test_something_that_is_no_model_is_a_type_error(tmp_path):
    with pytest.raises(TypeError, match="3 is not a model"):
        run(3, tmp_path, suite="imagenet")
