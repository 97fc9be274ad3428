"""Studies of small networks: their statistics, tables and, in small, a run of one."""

import json

import pytest

from benchmarks import kernel_sizes, small_networks, trained, trained_tables
from lska_jax.commands.config_option import load_config
from lska_jax.ops.kernel_spec import kernel_spec


def row(label: str, seed: int, **scores: float) -> dict:
    of_scores = {
        key.replace("__", "/"): {
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "num_images": 9,
            "note": "synthetic",
        }
        for key, value in scores.items()
    }
    fields = [
        {"image_size": 8, "map": name, "radius": radius, "A": [3, 3, 5, 7], "P": [3, 3, 5, None]}
        for name, radius in (("stage1", 1.0), ("stage2", 2.0 + seed))
    ]
    taps = {"local_size": 3, "dilated_size": 3, "dilation": 2, "maps": [8, 2], "live": [3, 1]}
    return {"label": label, "seed": seed, "parameters": 1234, "scores": of_scores,
            "fields": fields, "taps": taps}  # fmt: skip


def result(*rows: dict) -> dict:
    return {"benchmark": "kernel_sizes_digits", "rows": list(rows)}


# --- intervals over seeds


def test_an_interval_is_students_of_the_pooled_spread():
    found = trained_tables.spreads({"a": [1.0, 2.0, 3.0], "b": [5.0, 5.0, 5.0]})
    # Variances 1 and 0, two degrees of freedom each: 1/2 pooled; t is 2.776 of four.
    reach = 2.7764 * (0.5 / 3) ** 0.5
    for name, mean in (("a", 2.0), ("b", 5.0)):
        assert found[name].mean == mean
        assert found[name].low == pytest.approx(mean - reach, abs=1e-3)
        assert found[name].high == pytest.approx(mean + reach, abs=1e-3)


def test_one_seed_has_no_interval_of_seeds():
    found = trained_tables.spreads({"a": [1.0], "b": [2.0]})
    assert found["a"].mean == 1.0 and found["a"].low != found["a"].low


def test_chance_is_small_where_seeds_agree_and_networks_do_not():
    apart = {"a": [1.0, 1.1, 0.9], "b": [5.0, 5.1, 4.9]}
    alike = {"a": [1.0, 2.0, 3.0], "b": [3.0, 1.0, 2.0]}
    assert trained_tables.chance(apart) < 1e-5
    assert trained_tables.chance(alike) == pytest.approx(1.0)


@pytest.mark.parametrize("seeds", [{"a": [1.0], "b": [2.0]}, {"a": [1.0] * 2, "b": [1.0] * 2}, {}])
def test_what_seeds_do_not_tell_has_no_chance(seeds):
    assert trained_tables.chance(seeds) is None


# --- tables


def test_scores_of_several_seeds_stand_as_mean_and_interval():
    rows = [row(label, seed, clean__top1=0.9 + 0.01 * seed) for label in "ab" for seed in (0, 1)]
    made = trained_tables.tables(result(*rows))
    header, _, first, _, chance = made["kernel_sizes_digits accuracy"].splitlines()
    assert header == "| Network | top-1, % |"
    # Student's t of two degrees of freedom is 4.303; the spread 1 / sqrt(2), of two seeds.
    assert first == "| a | 90.5 [88.3, 92.7] |"
    assert chance == "| chance | p = 1 |"


def test_scores_of_one_seed_have_the_interval_over_images():
    made = trained_tables.tables(result(row("a", 0, clean__top1=0.9), row("b", 0)))
    assert made["kernel_sizes_digits accuracy"].splitlines()[2:] == [
        "| a | 90.0 [80.0, 100.0] |",
        "| b | not yet run |",
    ]


def test_fields_are_those_of_the_last_map():
    made = trained_tables.tables(result(row("a", 0), row("a", 1)))
    *_, line = made["kernel_sizes_digits fields"].splitlines()
    assert line.startswith("| a | 2.5 [")
    assert line.endswith("| 5 | 7 | 5 | all |")


def test_live_taps_stand_beside_the_kernel():
    made = trained_tables.tables(result(row("a", 0), row("b", 0)))
    first = made["kernel_sizes_digits taps"].splitlines()[2]
    assert first == "| a | 3, 3 x dilation 2 | 3, 1 | 1,234 |"


# --- kernels


@pytest.mark.parametrize(("side", "k"), [(4, 11), (7, 17), (8, 17), (14, 29), (16, 35), (32, 65)])
def test_the_largest_k_of_a_map_has_no_dead_tap_and_the_next_has(side, k):
    spec, next_spec = kernel_spec(k, dilation=3), kernel_spec(k + 6, dilation=3)
    assert kernel_sizes.live_taps(spec.dilated_size, 3, side) == spec.dilated_size
    assert kernel_sizes.live_taps(next_spec.dilated_size, 3, side) == spec.dilated_size


@pytest.mark.parametrize("data", kernel_sizes.KERNEL_SIZES)
def test_every_k_of_a_study_has_a_cascade_and_a_config(data):
    for k in kernel_sizes.KERNEL_SIZES[data]:
        kernel_spec(k)
        assert load_config(f"{data}:{k}").model.k == k


def test_a_command_is_told_without_the_folders_of_a_machine():
    told = trained.without_folders("python -m b --source folder:/a/b/c.tar --stimuli=/d/e runs/x")
    assert told == "python -m b --source folder:c.tar --stimuli=e runs/x"


def test_an_option_that_nobody_knows_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="Not understood: --nothing=3"):
        kernel_sizes.main(["--quick", "--out", str(tmp_path), "--nothing=3"])


# --- the whole, in small


@pytest.mark.slow
@pytest.mark.parametrize("study", [kernel_sizes, small_networks])
def test_a_study_goes_on_where_it_was_stopped(study, tmp_path, capsys):
    study.main(["--quick", "--out", str(tmp_path)])
    capsys.readouterr()
    study.main(["--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "is complete" in printed and "| --- |" in printed and "compiling" not in printed
    written = json.loads((tmp_path / f"{study.NAME}_digits.json").read_text())
    assert written["is_quick"]
    for one in written["rows"]:
        assert {"clean/top1", "made_conflict/decided/patches"} <= set(one["scores"])
        assert all(field["radius"] > 0 for field in one["fields"])
