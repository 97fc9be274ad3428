"""Reporting: what a person sees, what the log keeps, and records that survive a kill."""

import io
import json
import re
import sys

import numpy as np
import pytest
from pseudo_terminal import Terminal

from lska_jax.running.live_line import LiveLine
from lska_jax.training.metric_writers import JsonLines, TensorBoard
from lska_jax.training.reporting import Reporter, format_duration

SETTINGS = {
    "total_steps": 100,
    "steps_per_epoch": 10,
    "global_batch_size": 64,
    "run_name": "test",
    "config": {},
}


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    yield terminal
    terminal.close()


def make_reporter(workdir, **changes):
    changes = {"writers": ("jsonl",), "stream": io.StringIO(), "clock": Clock(), **changes}
    return Reporter(workdir, **{**SETTINGS, **changes})


def records(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def train(reporter, clock, steps, *, seconds_per_step=0.5, loss=1.0):
    for step in steps:
        clock.seconds += seconds_per_step
        reporter.train(step, {"loss": loss, "learning_rate": step / 1000})


def test_a_record_in_the_making_goes_on_after_a_restart(tmp_path):
    losses = [3.0, 1.0, float("nan"), 2.0, 4.0, 5.0]
    with make_reporter(tmp_path / "whole", log_every_steps=3) as reporter:
        for step, loss in enumerate(losses, start=1):
            reporter.train(step, {"loss": loss, "learning_rate": step / 10})
    with make_reporter(tmp_path / "parts", log_every_steps=3) as reporter:
        for step, loss in enumerate(losses[:5], start=1):
            reporter.train(step, {"loss": loss, "learning_rate": step / 10})
        kept = json.loads(json.dumps(reporter.open_record()))
    with make_reporter(tmp_path / "parts", start_step=5, log_every_steps=3) as reporter:
        reporter.continue_record(kept)
        reporter.train(6, {"loss": losses[5], "learning_rate": 0.6})
    whole, parts = (
        [
            (line["step"], line["train/loss"], line["train/learning_rate"])
            for line in map(
                json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines()
            )
        ]
        for name in ("whole", "parts")
    )
    assert parts == whole
    assert len(whole) == 2


def test_an_evaluation_that_comes_again_has_its_line_once(tmp_path):
    with make_reporter(tmp_path, log_every_steps=1) as reporter:
        reporter.train(1, {"loss": 1.0})
        reporter.evaluation(1, {"eval/top1": 0.5}, shown="x")
        reporter.train(2, {"loss": 1.0})
        reporter.evaluation(2, {"eval/top1": 0.6}, shown="x")
    make_reporter(tmp_path, start_step=2, is_evaluation_due=True).close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "eval/top1" in line) for line in lines] == [
        (1, False),
        (1, True),
        (2, False),
    ]


def test_a_record_has_the_mean_loss_of_its_steps_and_the_last_learning_rate(tmp_path):
    with make_reporter(tmp_path, log_every_steps=4) as reporter:
        for step, loss in enumerate([1.0, 2.0, 3.0, 6.0, 10.0, 10.0, 10.0, 14.0], start=1):
            reporter.train(step, {"loss": loss, "learning_rate": 0.1 * step})
    first, second = records(tmp_path)
    assert (first["step"], first["epoch"], first["train/loss"]) == (4, 0.4, 3.0)
    assert first["train/learning_rate"] == pytest.approx(0.4)
    assert (second["step"], second["train/loss"]) == (8, 11.0)
    assert second["train/learning_rate"] == pytest.approx(0.8)


def test_images_per_second_leaves_out_the_compilation_of_the_first_step(tmp_path):
    clock = Clock()
    with make_reporter(tmp_path, clock=clock, log_every_steps=5) as reporter:
        clock.seconds += 300
        train(reporter, clock, range(1, 11))
    assert [line["train/images_per_second"] for line in records(tmp_path)] == [128.0, 128.0]


def test_images_per_second_leaves_out_an_evaluation_between_the_steps(tmp_path):
    clock = Clock()
    with make_reporter(tmp_path, clock=clock, log_every_steps=10) as reporter:
        train(reporter, clock, range(1, 6))
        with reporter.progress("evaluating", 3):
            clock.seconds += 60
        train(reporter, clock, range(6, 11))
    assert records(tmp_path)[0]["train/images_per_second"] == 128.0


def test_images_per_second_follows_the_last_window(tmp_path):
    clock = Clock()
    with make_reporter(tmp_path, clock=clock, log_every_steps=5) as reporter:
        train(reporter, clock, range(1, 6), seconds_per_step=1.0)
        train(reporter, clock, range(6, 11), seconds_per_step=0.25)
    assert [line["train/images_per_second"] for line in records(tmp_path)] == [64.0, 256.0]


def test_one_step_alone_has_no_rate_instead_of_a_wrong_one(tmp_path):
    with make_reporter(tmp_path, log_every_steps=1) as reporter:
        reporter.train(1, {"loss": 1.0})
    assert "train/images_per_second" not in records(tmp_path)[0]


def test_the_last_step_is_recorded_even_inside_a_window(tmp_path):
    with make_reporter(tmp_path, total_steps=7, log_every_steps=5) as reporter:
        train(reporter, Clock(), range(1, 8))
    assert [line["step"] for line in records(tmp_path)] == [5, 7]


def test_an_evaluation_is_one_record_and_one_line_as_the_task_shows_it(tmp_path):
    stream = io.StringIO()
    with make_reporter(tmp_path, stream=stream) as reporter:
        values = {"eval/top1": np.float32(0.75), "eval/loss": 1.25}
        reporter.evaluation(20, values, shown="top1 75.00 %")
        reporter.evaluation(20, {"seen/loss": 1.5}, shown="loss 1.5", evaluator="seen")
    line, other = records(tmp_path)
    assert (line["step"], line["epoch"]) == (20, 2)
    assert (line["eval/top1"], line["eval/loss"], other["seen/loss"]) == (0.75, 1.25, 1.5)
    assert stream.getvalue() == (
        "evaluation after step 20 (epoch 2.00): top1 75.00 %\n"
        "evaluation seen after step 20 (epoch 2.00): loss 1.5\n"
    )


def test_numbers_that_are_not_finite_become_null(tmp_path):
    with make_reporter(tmp_path, log_every_steps=1) as reporter:
        reporter.train(1, {"loss": float("nan"), "gradient_norm": float("inf")})
    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert line["train/loss"] is None
    assert line["train/gradient_norm"] is None


def test_a_resumed_run_has_every_record_once(tmp_path):
    with make_reporter(tmp_path, log_every_steps=5) as reporter:
        train(reporter, Clock(), range(1, 26))
        reporter.evaluation(25, {"eval/top1": 0.1}, shown="x")
    # What a kill leaves: records beyond the checkpoint of step 12, and a torn line.
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 30, "epo')
    with make_reporter(tmp_path, start_step=12, log_every_steps=5) as reporter:
        assert [line["step"] for line in records(tmp_path)] == [5, 10]
        train(reporter, Clock(), range(13, 26))
        reporter.evaluation(25, {"eval/top1": 0.2}, shown="x")
    assert [line["step"] for line in records(tmp_path)] == [5, 10, 15, 20, 25, 25]
    assert records(tmp_path)[-1]["eval/top1"] == 0.2
    assert [path.name for path in tmp_path.glob("metrics*")] == ["metrics.jsonl"]


def test_a_torn_line_of_a_kept_step_is_removed_not_continued(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    writer = JsonLines(path, start_step=2)
    writer.write(3, {"loss": 1.0})
    writer.close()
    assert [line["step"] for line in records(tmp_path)] == [1, 3]


def test_a_run_that_starts_again_from_nothing_leaves_no_old_records(tmp_path):
    for _ in range(2):
        with make_reporter(tmp_path) as reporter:
            reporter.evaluation(0, {"eval/top1": 0.1}, shown="x")
    assert [line["step"] for line in records(tmp_path)] == [0]


def test_the_live_line_is_rewritten_below_lines_that_stay(tmp_path, terminal):
    clock = Clock()
    reporter = make_reporter(tmp_path, stream=terminal.stream, clock=clock)
    train(reporter, clock, range(1, 5), loss=2.5)
    reporter.message("a checkpoint was saved")
    train(reporter, clock, range(5, 9), loss=2.5)
    assert terminal.rows() == [
        "a checkpoint was saved",
        "epoch 1/10 | step 8/100 | 128 images/s | loss 2.5 | lr 0.008 | 0:00:46 left",
    ]
    reporter.close()


def test_the_live_line_is_gone_when_the_run_ends(tmp_path, terminal):
    clock = Clock()
    reporter = make_reporter(tmp_path, stream=terminal.stream, clock=clock)
    train(reporter, clock, range(1, 5))
    reporter.close()
    assert terminal.rows() == []


def test_the_live_line_changes_at_most_five_times_a_second(terminal):
    clock = Clock()
    line = LiveLine(terminal.stream, clock=clock)
    for number in range(32):
        line.update(f"number {number}")
        # A sixteenth of a second is exact in binary, so every fourth update is 0.25 s later.
        clock.seconds += 0.0625
    assert terminal.rows() == ["number 28"]
    assert terminal.written.count("number") == 8


def test_a_notebook_has_a_live_line_that_changes_once_a_second_without_escape_sequences():
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    clock = Clock()
    line = LiveLine(stream, clock=clock)
    for number in range(8):
        line.update(f"number {number}")
        clock.seconds += 0.25
    line.print("this stays")
    line.clear()
    erased = f"\r{' ' * len('number 0')}\r"
    first, second = "\r\rnumber 0", f"{erased}number 4"
    assert stream.getvalue() == f"{first}{second}{erased}this stays\nnumber 4{erased}"


def test_a_line_longer_than_the_terminal_is_cut(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    LiveLine(terminal.stream, clock=Clock()).update("x" * 50)
    assert terminal.rows() == ["x" * 19]


def test_progress_on_a_terminal_counts_and_disappears(tmp_path, terminal):
    reporter = make_reporter(tmp_path, stream=terminal.stream)
    with reporter.progress("evaluating", 4) as progress:
        progress.advance(2)
    reporter.close()
    assert terminal.rows() == []
    assert "evaluating | 2/4" in terminal.written


def test_without_a_terminal_lines_are_plain_and_seconds_apart(tmp_path):
    stream, clock = io.StringIO(), Clock()
    with make_reporter(tmp_path, stream=stream, clock=clock, log_every_steps=1) as reporter:
        train(reporter, clock, range(1, 101))
    lines = stream.getvalue().splitlines()
    # 49.5 s between the first step and the last: a line each 10 s, and the last step's.
    assert [re.search(r"step (\d+)/", line)[1] for line in lines] == [
        *("1", "21", "41", "61", "81"),
        "100",
    ]
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", stream.getvalue()) is None


def test_the_log_file_has_times_and_no_control_characters(tmp_path, terminal):
    clock = Clock()
    reporter = make_reporter(tmp_path, stream=terminal.stream, clock=clock, log_every_steps=2)
    train(reporter, clock, range(1, 9))
    reporter.evaluation(8, {"eval/top1": 0.5}, shown="x")
    reporter.message("\x1b[31mred\x1b[0m and\r a\x07 bell\nsecond line")
    reporter.close()
    text = (tmp_path / "log.txt").read_text()
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text) is None
    lines = [line[20:] for line in text.splitlines()]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in text.splitlines())
    assert lines[0].startswith("epoch 1/10 | step 2/100 | 128 images/s")
    assert lines[-3].startswith("evaluation after step 8")
    assert lines[-2:] == ["red and a bell", "second line"]


def test_a_name_that_is_no_text_is_logged_and_shown_escaped(tmp_path):
    file = (tmp_path / "shown").open("w+", encoding="utf-8")
    with file, make_reporter(tmp_path, stream=file) as reporter:
        reporter.message("Broken image left out: a\udcff.jpg")
        file.seek(0)
        assert "a\\udcff.jpg" in file.read()
    assert "a\\udcff.jpg" in (tmp_path / "log.txt").read_text()


def test_a_resumed_run_continues_its_log(tmp_path):
    for text in ("first", "second"):
        with make_reporter(tmp_path, start_step=3) as reporter:
            reporter.message(text)
    assert [line[20:] for line in (tmp_path / "log.txt").read_text().splitlines()] == [
        "first",
        "second",
    ]


def test_other_processes_write_nothing(tmp_path):
    stream = io.StringIO()
    with make_reporter(tmp_path / "run", stream=stream, is_main=False) as reporter:
        reporter.train(50, {"loss": 1.0})
        reporter.evaluation(50, {"eval/top1": 0.5}, shown="x")
        reporter.message("hello")
        with reporter.progress("evaluating", 2) as progress:
            progress.advance()
    assert stream.getvalue() == ""
    assert not (tmp_path / "run").exists()


def test_a_writer_that_fails_is_switched_off_and_the_run_goes_on(tmp_path, monkeypatch):
    def fail(self, step, values):
        raise ConnectionError("the service is down")

    monkeypatch.setattr(TensorBoard, "write", fail)
    stream = io.StringIO()
    with make_reporter(tmp_path, stream=stream, writers=("jsonl", "tensorboard")) as reporter:
        for step in (1, 2):
            reporter.evaluation(step, {"eval/top1": 0.5}, shown="x")
    assert stream.getvalue().count("The metric writer tensorboard failed") == 1
    assert [line["step"] for line in records(tmp_path)] == [1, 2]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_writer_without_its_package_names_the_extra_to_install(tmp_path, monkeypatch, name):
    # None in sys.modules makes Python's own import fail, installed or not.
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"pip install lska-jax\[{name}\]"):
        make_reporter(tmp_path, writers=(name,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"writers": ("jsonl", "csv")}, "allowed: jsonl, tensorboard, wandb, mlflow"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0"),
        ({"log_every_steps": 0}, "log_every_steps is 0"),
        ({"global_batch_size": -1}, "global_batch_size is -1"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make_reporter(tmp_path, **changes)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725.0, "1:02:05"), (90061.0, "1 d 1:01:01")],
)
def test_durations_read_as_hours_minutes_and_seconds(seconds, text):
    assert format_duration(seconds) == text
