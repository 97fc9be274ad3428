"""The page about training runs: what it says is what the runs say."""

import json
import re
import shutil

import numpy as np
import pytest
from small_runs import small_config

from lska_jax.analysis.run_report.history import read_history
from lska_jax.analysis.run_report.outcomes import find_outcomes, see_batch
from lska_jax.analysis.run_report.write import report_runs
from lska_jax.commands.report import main


def write_run(folder, *, k=23, top1=(0.5, 0.7, 0.6), metric="eval/top1"):
    """Return the folder of a run that was never trained."""
    folder.mkdir()
    lines = []
    for number, value in enumerate(top1, 1):
        train = {"train/loss": 2.0 / number, "train/images_per_second": 100.0 * number}
        lines.append({"step": 10 * number, "epoch": number, "time": 0.0, **train})
        lines.append({"step": 10 * number, "epoch": number, "time": 0.0, metric: value})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 4\n')
    (folder / "config.json").write_text(json.dumps({"task": "classification", "model": {"k": k}}))
    (folder / "environment.json").write_text(json.dumps({"devices": "2 cpu"}))
    return folder


def test_the_history_of_a_run_is_its_metrics_by_name(tmp_path):
    history = read_history(write_run(tmp_path / "run"))
    assert history.curves["eval/top1"].steps.tolist() == [10, 20, 30]
    assert history.curves["eval/top1"].values.tolist() == [0.5, 0.7, 0.6]
    assert history.damaged == 1


def test_nothing_in_a_runs_files_ends_the_reading(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "config.json").write_text("[" * 100_000)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": {10**400}, "train/loss": 1.0}}\n')
        file.write(f'{{"step": 40, "epoch": "x", "train/loss": {10**400}}}\n' + "[" * 100_000)
    history = read_history(run)
    assert history.damaged == 3 and history.config == {}
    assert np.isnan(history.curves["train/loss"].values[-1])


def test_a_run_that_is_not_there_is_said(tmp_path, capsys):
    assert main([str(tmp_path / "typo")]) == 2
    assert "There is no run and no results file" in capsys.readouterr().err


def test_runs_are_compared_on_one_page_that_needs_nothing_beside_it(tmp_path, capsys):
    runs = [str(write_run(tmp_path / f"k{k}", k=k)) for k in (7, 23)]
    out = tmp_path / "out"
    assert main([*runs, "--out", str(out), "--without_images"]) == 0
    page = (out / "report.html").read_text()
    assert "60.00 % (best 70.00 %, 20)" in page and "2 cpu" in page
    differing = page[page.index("What differs") : page.index("All 2 settings")]
    assert "model.k" in differing and "task" not in differing
    assert "1 lines of the metrics are damaged" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|\#)""", page)
    assert sorted(path.name for path in out.iterdir()) == ["curves.png", "report.html"]


@pytest.mark.slow
def test_a_run_whose_images_are_not_here_is_reported_without_them(tmp_path):
    run = write_run(tmp_path / "run", metric="eval/mIoU")
    page = report_runs([run], report=lambda _: None)
    # Metrics of another task have panels and columns too.
    assert "0.6000 (best 0.7000, 20)" in page.read_text()
    assert page == tmp_path / "run" / "report" / "report.html"
    assert "Images cannot be shown: There is no" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "RESULTS"], "Give folders of runs or results files of robustness, not both."),
        (["EMPTY"], "is no run: it has no metrics.jsonl"),
        (["RUN", "RUN", "--out", "x"], "told apart by their folders' names"),
        (["RUN", "--against_k"], "are for results files of robustness"),
        (["RESULTS"], "--out DIR is missing"),
    ],
)
def test_mistakes_end_in_one_readable_line(tmp_path, arguments, message, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "results.jsonl").touch()
    places = {
        "RUN": str(write_run(tmp_path / "run")),
        "EMPTY": str(tmp_path / "empty"),
        "RESULTS": str(tmp_path / "results.jsonl"),
    }
    assert main([places.get(word, word) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a run with mixing, one epoch long."""
    from lska_jax.training import loop

    config = small_config()
    config.optimizer.epochs = 2
    config.training.label_smoothing = 0.1
    folder = tmp_path_factory.mktemp("trained") / "run"
    loop.train(config, workdir=folder)
    return folder


@pytest.mark.slow
def test_the_confusion_matrix_adds_up_to_the_accuracy_that_training_reported(trained):
    outcomes = find_outcomes(trained)
    curve = read_history(trained).curves["eval/top1"]
    best = curve.values[curve.steps == outcomes.step][0]
    assert outcomes.confusion.sum() == 355
    np.testing.assert_allclose(np.trace(outcomes.confusion) / 355, best, rtol=1e-6)
    sure = [mistake.probability for mistake in outcomes.mistakes]
    assert sure == sorted(sure, reverse=True)
    assert all(mistake.label != mistake.predicted for mistake in outcomes.mistakes)


@pytest.mark.slow
def test_a_batch_is_that_of_the_run_and_its_targets_are_smoothed(trained):
    seen = see_batch(trained, step=1, rows=5)
    assert seen.images.shape == (5, 8, 8, 1) and seen.targets.shape == (5, 10)
    np.testing.assert_allclose(seen.targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(seen.targets.max(axis=1), 0.91, rtol=1e-6)
    np.testing.assert_array_equal(see_batch(trained, step=1, rows=5).images, seen.images)
    assert (see_batch(trained, step=2, rows=5).images != seen.images).any()


@pytest.mark.slow
def test_pictures_are_on_the_page_and_in_tensorboard_once(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for _ in range(2):
        page = report_runs([run], report=lambda _: None)
    names = {path.stem for path in page.parent.glob("*.png")}
    assert names == {"curves", "run.confusion", "run.classes", "run.mistakes", "run.batch"}
    assert page.read_text().count("<figure>") == 5
    assert "jax " in page.read_text()  # the environment
    assert len(list((run / "tensorboard" / "report").iterdir())) == 1
