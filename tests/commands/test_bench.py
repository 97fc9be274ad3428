"""The measurement of a source: what it prints, and its answers to bad input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lska_jax.commands.bench import main, measure, workers_to_try
from lska_jax.data.augment import TrainTransform
from lska_jax.data.digits import DigitsSource
from lska_jax.ops.processor import usable_cores

QUICK = ("--seconds", "0.01", "--batch_size", "8", "--image_size", "8")


def make_folder(root: Path, *, is_broken: bool = False) -> Path:
    for name in ("cat", "dog"):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for number in range(4):
            path = folder / f"{number}.jpg"
            if is_broken:
                path.write_bytes(b"no image")
            else:
                Image.new("RGB", (20, 10), (number, 0, 0)).save(path)
    return root


def table_rows(output: str) -> list[list[str]]:
    lines = output.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:1] == ["workers"])
    return [line.split() for line in lines[header + 1 :]]


def test_it_prints_the_speed_of_a_source_and_the_conditions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["digits", "--rand_augment", "none", "--num_workers", "0", *QUICK]) == 0
    output = capsys.readouterr().out
    assert "digits/train: 1,442 images, median 8 x 8 pixels" in output
    assert "8 x 8 x 1, crop random_resized, RandAugment none, batches of 8" in output
    assert f"{usable_cores()} cores" in output
    assert "grain " in output
    (row,) = table_rows(output)
    assert row[0] == "0"
    assert float(row[1].replace(",", "")) > 0


def test_files_are_read_as_colour_and_their_stored_size_is_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = f"folder:{make_folder(tmp_path)}"
    assert main([source, "--crop", "padded", "--pad", "1", "--num_workers", "0", *QUICK]) == 0
    output = capsys.readouterr().out
    assert "8 images, median 20 x 10 pixels, 0." in output
    assert "8 x 8 x 3, crop padded, RandAugment rand-m9-mstd0.5-inc1" in output


def test_without_a_terminal_no_bar_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "--num_workers", "0", *QUICK]) == 0
    assert capsys.readouterr().err == ""


def test_worker_processes_can_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "--num_workers", "1", *QUICK]) == 0
    assert [row[0] for row in table_rows(capsys.readouterr().out)] == ["1"]


@pytest.mark.parametrize(
    ("cores", "tried"), [(1, [0, 1]), (2, [0, 1, 2]), (6, [0, 1, 2, 4, 6]), (8, [0, 1, 2, 4, 8])]
)
def test_a_sweep_tries_threads_powers_of_two_and_all_cores(cores: int, tried: list[int]) -> None:
    assert workers_to_try(cores) == tried


def test_a_measurement_reads_for_the_time_asked_for() -> None:
    transform = TrainTransform(image_size=8, channels=1, crop="none")
    durations: list[float] = []

    class Bar:
        n = 0.0

        def set_postfix_str(self, text: str, refresh: bool) -> None:
            assert text.endswith("images/s")

        def update(self, seconds: float) -> None:
            self.n += seconds
            durations.append(self.n)

    speed = measure(
        DigitsSource("test"), transform, batch_size=8, num_workers=0, seconds=0.05, progress=Bar()
    )
    assert speed.images_per_second > 0
    assert speed.seconds_to_first_batch > 0
    np.testing.assert_allclose(durations[-1], 0.05)  # the bar ends full, never beyond
    assert durations == sorted(durations)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "Unknown data source 'nosuch'"),
        (["folder:/does/not/exist"], "/does/not/exist does not exist"),
        (["digits", "--split", "validation"], "no split 'validation'"),
        (["digits", "--rand_augment", "cutout"], "RandAugment is 'cutout'"),
        (["digits", "--pad", "3"], "pad is 3"),
    ],
)
def test_bad_input_ends_with_a_message_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--num_workers", "0", *QUICK]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert message in error


def test_a_source_of_broken_images_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = f"folder:{make_folder(tmp_path, is_broken=True)}"
    assert main([source, "--num_workers", "0", *QUICK]) == 2
    assert "can be decoded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "SOURCE"),
        (["digits", "--num_workers", "many"], "neither a number nor 'sweep'"),
        (["digits", "--num_workers", "-1"], "neither a number nor 'sweep'"),
        (["digits", "--seconds", "0"], "positive float value: '0'"),
        (["digits", "--seconds", "nan"], "positive float value: 'nan'"),
        (["digits", "--batch_size", "1.5"], "positive int value: '1.5'"),
        (["digits", "--image_size", "-8"], "positive int value: '-8'"),
        (["digits", "--channels", "2"], "invalid choice: 2"),
        (["digits", "--crop", "centre"], "invalid choice: 'centre'"),
    ],
)
def test_wrong_arguments_are_refused_with_the_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert refusal.value.code == 2
    assert message in capsys.readouterr().err
