"""Every benchmark runs in small and leaves files that its tables are made from."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    accelerator,
    corruptions,
    cost_against_k,
    cost_cells,
    dense_ops,
    first_step,
    harness,
    huge_pages,
    model,
    networks,
    operations,
    ops,
    reading,
    results,
    segmentor,
    tune,
)
from benchmarks.harness import Timing, measure_alternately
from lska_jax import create_model
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.ops.formulations import Site, part_of

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "dense_ops": dense_ops,
    "ops": ops,
    "model": model,
    "cost_against_k": cost_against_k,
    "corruptions": corruptions,
    "accelerator": accelerator,
    "segmentor": segmentor,
    "reading": reading,
}


def _measure_once(contenders, **options):
    once = {"seconds_each": 0.0, "min_repetitions": 1, "pause": lambda seconds: None}
    return measure_alternately(contenders, **{**options, **once})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder, for quick runs that time every contender once.

    Pictures are drawn where matplotlib is installed.
    """
    monkeypatch.setenv(results.WAIT_POLICY, "PASSIVE")
    monkeypatch.setattr(harness, "SAMPLE_SECONDS", 1e-9)
    monkeypatch.setattr(harness, "measure_alternately", _measure_once)
    # No quick run has frost, for which they are drawn.
    monkeypatch.setattr("lska_jax.robustness.corruptions.synthetic_frost_pictures", lambda: None)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        monkeypatch.setattr("benchmarks.ops.draw", lambda *arguments: None)
        monkeypatch.setattr("benchmarks.model.draw", lambda *arguments: None)
        monkeypatch.setattr("benchmarks.first_step.draw", lambda *arguments: None)
        monkeypatch.setattr("benchmarks.cost_tables.draw", lambda *arguments: None)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    # "cost_against_k" starts eight processes; the others compile networks or parts of them.
    [
        pytest.param(name, marks=pytest.mark.slow)
        if name
        in ("cost_against_k", "accelerator", "dense_ops", "ops", "model", "segmentor", "reading")
        else name
        for name in COMMANDS
    ],
)
def test_a_quick_run_writes_positive_figures_and_prints_tables(name, folder, capsys):
    COMMANDS[name].main(["--quick", "--out", str(folder)])
    result = json.loads((folder / f"{name}.json").read_text())
    assert result["is_quick"]
    assert set(result) == {"benchmark", "is_quick", "conditions", "rows"}
    assert all(row["seconds"] > 0 for row in result["rows"])
    printed = capsys.readouterr().out
    assert "| --- |" in printed
    assert "GLIBC_TUNABLES" in printed


@pytest.mark.slow
def test_huge_pages_are_compared_in_processes_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv(results.WAIT_POLICY, "PASSIVE")
    monkeypatch.setattr(results, "has_torch", lambda: False)
    monkeypatch.chdir(ROOT)
    huge_pages.main(["--quick", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "huge_pages.json").read_text())["rows"]
    assert [row["pages"] for row in rows] == [huge_pages.DEFAULT, huge_pages.HUGE_PAGES]
    assert all(row["seconds"] > 0 for row in rows)


def test_benchmarks_can_be_imported_without_torch_and_matplotlib():
    modules = ("ops", "model", "cost_against_k", "huge_pages", "first_step", "tables",
               "corruptions", "accelerator", "dense_ops", "segmentor", "tune")  # fmt: skip
    code = (
        "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None; "
        f"import {', '.join(f'benchmarks.{module}' for module in modules)}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.slow
def test_the_first_step_is_timed_by_phases_in_both_forms(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    first_step.main(["--quick", "--out", str(folder)])
    rows = json.loads((folder / "first_step.json").read_text())["rows"]
    assert [row["form"] for row in rows] == list(first_step.FORMS)
    for row in rows:
        assert set(row["seconds"]) == {*first_step.PHASES, first_step.LATER}
        assert all(seconds > 0 for seconds in row["seconds"].values())


@pytest.mark.slow
def test_scanned_blocks_compute_the_same_loss_gradients_and_statistics():
    model_ = create_model("van_lska_tiny", **{**model.QUICK_ARCHITECTURE, "depths": (2,)})
    images, labels = (jnp.asarray(array) for array in networks.random_batch(2, 16, 1000))
    plain = (ModelFunctions(model_), parameters(model_), batch_stats(model_))
    results_ = [
        jax.jit(networks.loss_and_gradients(functions))(params, stats, images, labels)
        for functions, params, stats in (plain, first_step.scanned_blocks(model_))
    ]
    # Float32 rounding through two blocks; gradients and statistics by their sums of squares.
    for one, other in zip(*results_, strict=True):
        squares = [
            sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(jax.device_get(tree)))
            for tree in (one, other)
        ]
        assert squares[1] == pytest.approx(squares[0], rel=1e-4)


def test_tuning_a_few_sites_cannot_overwrite_the_table_of_the_package(capsys):
    with pytest.raises(SystemExit):
        tune.main(["--only", "2"])
    assert "--only would leave the package's table with few rows" in capsys.readouterr().err


def test_tuning_writes_the_fastest_formulation_of_every_part(tmp_path, monkeypatch):
    taken = iter([
        {"xla": 3.0, "shift": 1.1, "toeplitz": 1.0},
        {"xla": 3.0, "shift": 2.0, "toeplitz": 1.0},
        {"xla": 1.0, "shift": 2.0, "toeplitz": 1.5},
    ])  # fmt: skip

    def measure(calls, **_):
        for call in calls.values():
            jax.block_until_ready(call())
        seconds = next(taken)
        assert calls.keys() == seconds.keys()
        return {name: Timing(value, (value, value), 1) for name, value in seconds.items()}

    monkeypatch.setattr(tune, "measure_alternately", measure)
    monkeypatch.setattr(tune, "sites", lambda: [Site((1, 3), 1, (4, 4), 2)] * 2)
    table = tmp_path / "table.json"
    table.write_text('{"tpu": {"source": "kept", "rows": []}}')
    tune.main(["--only", "1", "--out", str(table)])
    written = json.loads(table.read_text())
    assert written["tpu"]["source"] == "kept"
    (row,) = written[part_of("cpu")]["rows"]
    assert (row["kernel_size"], row["map_size"], row["channels"]) == ([1, 3], [4, 4], 2)
    assert row["formulations"] == ["shift", "toeplitz", "xla"]
    assert row["milliseconds"]["forward"] == {"xla": 3000.0, "shift": 1100.0, "toeplitz": 1000.0}


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        ({"xla": 9.0, "shift": 1.1, "toeplitz": 1.0}, "shift"),  # not by the margin
        ({"xla": 9.0, "shift": 1.3, "toeplitz": 1.0}, "toeplitz"),
        ({"xla": 9.0, "toeplitz": 10.0}, "xla"),
    ],
)
def test_another_formulation_has_to_be_clearly_faster_than_shifts(seconds, taken):
    assert tune.fastest(seconds) == taken


def test_the_rows_of_the_tpu_are_those_of_least_bytes():
    figures = {"xla": 3.0, "shift": 2.0, "pallas": 1.0}
    stage = {"shape": [64, 56, 56, 32]}
    for name, megabytes in figures.items():
        stage[f"{name} forward"] = {"bytes_accessed_mb": megabytes}
        stage[f"{name} forward_backward"] = {"bytes_accessed_mb": 4.0 - megabytes}
    conditions = {"topology": "t", "batch_per_chip": 64, "dtype": "d", "jax": "j", "libtpu": "l",
                  "k": 23}  # fmt: skip
    part = tune.compiled_part({"conditions": conditions, "cascade": {"tiny": [stage]}})
    assert part["source"].startswith("Compiled only, never run")
    assert len(part["rows"]) == 4
    assert {tuple(row["formulations"]) for row in part["rows"]} == {("pallas", "xla", "xla")}


def test_without_an_accelerator_the_command_for_it_says_what_to_run(capsys):
    with pytest.raises(SystemExit):
        accelerator.main([])
    assert "no GPU or TPU here; on CPU run python -m benchmarks.model" in capsys.readouterr().err


def test_a_run_on_an_accelerator_goes_on_with_the_cases_that_are_missing(
    folder, monkeypatch, capsys
):
    wanted = accelerator.rounds()
    every = [case for cases in wanted for case in cases]
    assert len(set(every)) == len(every) == 3 * 2 * 6
    assert {case.batch_size for case in wanted[0]} == {64}
    begun = []

    def measure(cases, **_):
        begun.append(cases)
        for case in cases[:-1]:  # the last is not compiled in time
            timing = {"seconds": 0.01, "quartiles": (0.01, 0.01), "repetitions": 5, "calls": 1}
            row = {**case._asdict(), "contender": "JAX", "memory_bytes": 2e9, "flops": 1e12}
            yield [{**row, **timing}]

    conditions = {"backend": "gpu, NVIDIA H200", "date": "", "command": ""}
    monkeypatch.setattr(results, "start", lambda *_, **__: dict(conditions))
    monkeypatch.setattr(accelerator, "keep_programs", lambda folder: None)
    monkeypatch.setattr(accelerator, "_measure", measure)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    accelerator.main(["--out", str(folder)])
    assert begun == wanted
    printed = capsys.readouterr().out
    assert f"{len(wanted)} cases are missing" in printed
    # 100 TFLOP/s of 989.5.
    assert "| van_lska_tiny | inference | bfloat16 | 64 | 10.0 | - | - | - | 6,400 |" in printed
    assert "| 2.00 | - | 10.1 % |" in printed
    begun.clear()
    accelerator.main(["--out", str(folder)])
    assert begun == [cases[-1:] for cases in wanted]


def test_on_a_gpu_what_auto_cannot_take_is_not_timed(monkeypatch):
    line, square = Site((1, 17), 3, (56, 56), 64), Site((3, 3), 1, (56, 56), 512)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert tune._is_left_out("pallas", line, "forward")  # by name only
    assert tune._is_left_out("xla", line, "weight_gradient")
    assert not tune._is_left_out("xla", line, "forward")
    assert not tune._is_left_out("xla", square, "weight_gradient")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert tune._is_left_out("pallas", line, "forward")
    assert not tune._is_left_out("xla", line, "weight_gradient")


def test_an_accelerator_is_tuned_in_both_dtypes_with_many_convolutions_a_program(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(tune, "_ACCELERATOR_MAPS", ((7, 4, 8),))
    monkeypatch.setattr(tune, "_ACCELERATOR_LINES", ())
    monkeypatch.setattr(tune, "_ACCELERATOR_SQUARES", ())
    monkeypatch.setattr(tune, "NAMES", ("xla", "shift"))
    monkeypatch.setattr(tune, "measure_alternately", _measure_once)
    monkeypatch.setattr(tune, "ACCELERATOR_BATCH", 2)
    table = tmp_path / "table.json"
    tune.main(["--out", str(table)])
    part = json.loads(table.read_text())["gpu"]
    assert "batch 2" in part["source"]
    dtypes = [row["dtype"] for row in part["rows"]]
    assert dtypes == ["bfloat16", "float32"]
    for row in part["rows"]:
        forward, input_gradient, _ = row["formulations"]
        assert forward == input_gradient
        assert set(row["milliseconds"]) == {"forward", "weight_gradient"}
        assert all(ms > 0 for part in row["milliseconds"].values() for ms in part.values())


def test_a_convolution_that_is_repeated_in_a_program_gives_the_same_result(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    site = Site((1, 5), 1, (7, 6), 3)
    run = tune._operation("shift", "weight_gradient", site.dilation)
    arrays = tune._arrays(site)
    lowered = jax.jit(tune._repeated(run)).lower(*arrays)
    loop = lowered.as_text().split("stablehlo.while", 1)[1]
    assert "optimization_barrier" in loop  # or it would be computed once, before the loop
    repeated = lowered.compile()
    np.testing.assert_allclose(repeated(*arrays), jax.jit(run)(*arrays), rtol=1e-5, atol=1e-4)


def test_a_program_that_cannot_be_compiled_is_left_out_and_said(monkeypatch, capsys):
    def fail(*arguments):
        raise RuntimeError("too large")

    site = Site((1, 5), 1, (7, 6), 3)
    monkeypatch.setattr(jax.stages.Lowered, "compile", fail)
    (programs,) = tune.compiled([site])
    assert all(not contenders for contenders in programs.values())
    assert "toeplitz is left out: too large" in capsys.readouterr().out


def test_full_runs_have_the_cases_that_are_claimed():
    cases = list(ops.full_cases())
    cascades = {(c.shape[1:], c.k) for c in cases if c.group == ops.CASCADE}
    assert len(cascades) == 8 * 3
    assert ((56, 56, 32), 53) in cascades and ((7, 7, 512), 7) in cascades
    assert (8, 56, 56, 256) in {c.shape for c in cases if c.group == ops.FFN}
    inference = {(c.size, c.batch_size) for c in model.FULL if c.mode == "inference"}
    assert inference == {(size, batch) for size in ("tiny", "small") for batch in (1, 8, 32)}


def test_the_ratio_of_the_corruptions_is_that_of_the_sums_an_image():
    rows = [
        {"corruption": name, "contender": who, "images": images, "seconds": seconds}
        for name, who, images, seconds in (
            ("fog", "JAX", 10, 0.01),
            ("fog", "generator", 2, 0.02),
            ("glass_blur", "JAX", 10, 0.03),
            ("glass_blur", "generator", 2, 0.18),
        )
    ]
    lines = corruptions.tables({"rows": rows})["corruptions"].splitlines()
    assert lines[-2] == "| all together | 4.00 | 100.00 | 25.0 |"
    assert lines[-1] == "| all but glass_blur | 1.00 | 10.00 | 10.0 |"


def test_arrays_are_random_and_never_zero():
    images, params, gradient = operations.random_arrays((1, 5, 6, 4), operations.cascade(7))
    for array in (images, gradient, *(part for pair in params for part in pair)):
        assert np.all(array != 0)
        assert len(np.unique(array)) > 1


def test_contenders_that_compute_something_else_are_refused():
    calls = {"ours": lambda: np.ones(3), "zeros": lambda: np.zeros(3)}
    wrapped = {
        name: (lambda call=call: operations.jnp.asarray(call())) for name, call in calls.items()
    }
    with pytest.raises(ValueError, match="zeros differs from ours"):
        operations.check_agreement(wrapped, mode="forward")


def test_a_form_that_failed_is_not_tried_at_larger_kernels(monkeypatch):
    def count_nothing(form, part, k, scale):
        return {"form": form, "k": k}

    monkeypatch.setattr(cost_against_k, "_counted", count_nothing)
    tried = []

    def fill(part, k, workers, *, limit, show):
        tried.append((part, k, set(workers)))
        failed = {"lka_trivial": "compiling took longer than 1 s"} if k == 11 else {}
        return {form: {"seconds": 1.0} for form in workers if form not in failed}, failed

    rows = list(cost_against_k._all_cells(fill, cost_against_k.QUICK, [7, 11, 23], limit=1))
    assert len(rows) == 2 * 3 * 4
    without = set(cost_cells.FORMS) - {"lka_trivial"}
    assert [forms for _, k, forms in tried if k == 23] == [without, without]
    reasons = {row["k"]: row["reason"] for row in rows if row["form"] == "lka_trivial"}
    assert reasons == {
        7: None,
        11: "k=11 compiling took longer than 1 s",
        23: "k=11 compiling took longer than 1 s",
    }


@pytest.mark.slow
def test_a_program_that_takes_too_long_is_ended_and_says_so():
    worker = cost_cells.Worker(cost_against_k.QUICK)
    worker.ask("build", "lska", cost_cells.ATTENTION, 7)
    with pytest.raises(cost_cells.CellFailed, match="took longer than 0 s"):
        worker.answer(within_seconds=0)
    worker.ask("build", "lska", cost_cells.ATTENTION, 9)  # starts anew; no cascade has k = 9
    with pytest.raises(cost_cells.CellFailed, match="k=9"):
        worker.answer(within_seconds=100)
    worker.close()
