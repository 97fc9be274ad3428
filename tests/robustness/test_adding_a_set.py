"""A set that nobody knew becomes one record, and is listed, swept, scored and reported."""

import dataclasses

import pytest
from known_models import PREPARED, reader, write_pictures

from lska_jax.robustness import evaluate
from lska_jax.robustness.cells import Score
from lska_jax.robustness.report import terminal_table
from lska_jax.robustness.scores.over_cells import stamp, value_of
from lska_jax.robustness.scores.scorer import OverCells, ScoredCell, Scorer, mean_score
from lska_jax.robustness.sets import catalogue
from lska_jax.robustness.sets.class_folders import ClassFolders
from lska_jax.robustness.sets.layouts import folders_of_parts
from lska_jax.robustness.sets.listing import describe_all
from lska_jax.robustness.sets.record import ImageSet

CLASSES = {"seven": 7, "eight": 8}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlmostRightScorer(Scorer):
    """Counts an answer as wrong only where it is further than one class away."""

    headlines: tuple[str, ...] = ("mean_error",)

    def score_cell(self, cell, outcomes, *, labels, extra, shapes, subsets):
        is_far = abs(outcomes.prediction[:, 0] - labels) > 1
        return ScoredCell({"error": mean_score(is_far)}, {})

    def score_set(self, name, of_set, *, cells):
        results = list(of_set.values())
        mean = sum(value_of(result, "error") for result in results) / len(results)
        return OverCells({f"{name}/mean_error": stamp(Score(mean), results)})


@pytest.fixture
def toy(monkeypatch) -> ImageSet:
    record = ImageSet(
        name="toy",
        title="Toy set",
        label_space="2 of the 1000 classes",
        parts=("dawn", "dusk"),
        citation="nobody",
        where="https://example.org/toy",
        num_images=4,
        layout="toys/PART/CLASS/*.png",
        places=folders_of_parts("toys"),
        classes=ClassFolders(is_one=lambda name: name in CLASSES, labels=lambda: CLASSES),
        scorer=AlmostRightScorer(),
    )
    monkeypatch.setitem(catalogue.SETS, record.name, record)
    return record


def run(tmp_path, **options):
    return evaluate(
        {"known": reader(1000)},
        out=tmp_path / "out",
        preprocessing=PREPARED,
        data_root=str(tmp_path),
        batch_size=8,
        num_workers=0,
        provenance="official",
        **options,
    )


def test_a_set_of_ones_own_is_swept_to_a_table(tmp_path, toy):
    write_pictures(tmp_path / "toys" / "dawn", {"seven": [7, 8], "eight": [7, 8]}, suffix="png")
    write_pictures(tmp_path / "toys" / "dusk", {"seven": [7, 9], "eight": [8, 9]}, suffix="png")
    (summary,) = run(tmp_path, suite="toy")
    values = {key: one.score.value for key, one in summary.scores.items()}
    assert values == {"toy/error/dawn": 0.0, "toy/error/dusk": 0.25, "toy/mean_error": 0.125}
    table = terminal_table([summary])
    assert "Toy set (official)" in table and "12.5" in table


def test_its_images_are_looked_for_where_its_record_says(tmp_path, toy):
    (summary,) = run(tmp_path, suite="toy/dusk")
    (hole,) = summary.holes
    assert "looked in" in hole.reason and "toys/PART" in hole.reason
    assert "get Toy set (size not known, 4 images a cell) from https://example.org/toy" in (
        hole.reason
    )
    assert "Toy set" in terminal_table([summary])


def test_it_is_listed_and_part_of_the_full_suite(toy):
    assert "toy: Toy set, 2 of the 1000 classes; 2 cells of 4 images" in describe_all()
    assert catalogue.suites()["full"][-1] == "toy"


def test_models_of_other_classes_are_refused_as_its_record_says(tmp_path, toy):
    with pytest.raises(ValueError, match="toy can only be measured for ImageNet's 1,000"):
        evaluate(
            reader(4),
            out=tmp_path,
            preprocessing=PREPARED,
            class_names=tuple("abcd"),
            suite="toy",
        )
