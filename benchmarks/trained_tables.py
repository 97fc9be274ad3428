"""Tables and pictures of ``benchmarks.trained``: means over seeds with intervals.

An interval of several seeds is Student's, of 95 %, from the spread of the seeds pooled over the
networks of the table: three seeds of one network leave two degrees of freedom, and its own spread
an interval of 2.5 standard deviations on each side that is itself mostly chance; pooled over five
networks there are ten, and 1.3 standard deviations. It takes the spread to be the same for all of
them. What one seed has is the bootstrap interval over images, which says nothing about other seeds.
The last line of a table is the probability of means that differ as much, or more, if all networks
were alike: a one-way analysis of variance of the seeds.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import NOT_YET_RUN, Row, markdown_table, read_result

FOLDER = Path("docs/science")
STUDIES = ("kernel_sizes_digits", "kernel_sizes_cifar10")
NETWORK_STUDIES = ("small_networks_digits", "small_networks_cifar10")
_LEVEL = 0.95
# Key of a score -> its head.
_ACCURACY = {
    "clean/top1": "top-1",
    "clean_c/mean_error": "mean error (15)",
    "clean_c/mean_error_19": "mean error (19)",
    "clean_c/retention_15": "retention (15)",
}
_SHAPE = {
    "made_conflict/shape_bias/patches": "shape bias, patches",
    "made_conflict/decided/patches": "decided, patches",
    "made_conflict/shape_bias/fourier": "shape bias, Fourier",
    "made_conflict/decided/fourier": "decided, Fourier",
    "cue_conflict/shape_bias": "shape bias, Geirhos' stimuli",
    "cue_conflict/decided": "decided, Geirhos' stimuli",
}
_DRAWN = (
    *("clean/top1", "clean_c/mean_error"),
    *("made_conflict/shape_bias/patches", "made_conflict/shape_bias/fourier"),
    "cue_conflict/shape_bias",
)


class Spread(NamedTuple):
    """What seeds of one network gave.

    Attributes:
      values: one a seed.
      low: end of the interval of their mean; NaN where there is none.
      high: the other end.
    """

    values: tuple[float, ...]
    low: float
    high: float

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values)


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of a result by name."""
    name, rows = result["benchmark"], result["rows"]
    found = {
        f"{name} accuracy": _score_table(rows, _ACCURACY),
        f"{name} shape": _score_table(rows, _SHAPE),
        f"{name} fields": _field_table(rows),
    }
    if "taps" in rows[0]:
        found[f"{name} taps"] = _tap_table(rows)
    return found


def all_tables(folder: Path) -> dict[str, dict[str, str]]:
    """Return the tables of every study in a folder, by study; nothing of one not yet run."""
    found = {}
    for name in (*STUDIES, *NETWORK_STUDIES):
        if (result := read_result(folder, name)) is not None:
            conditions = f"{name} conditions"
            found[name] = {conditions: _conditions(result, folder), **tables(result)}
    return found


def spreads(by_network: Mapping[str, Sequence[float]]) -> dict[str, Spread]:
    """Return the interval of each network's mean, from the spread pooled over networks."""
    from scipy import stats

    squares = sum(statistics.variance(v) * (len(v) - 1) for v in by_network.values() if len(v) > 1)
    freedom = sum(len(values) - 1 for values in by_network.values())
    found = {}
    for name, values in by_network.items():
        reach = math.nan
        if freedom and len(values) > 1:
            quantile = float(stats.t.ppf((1 + _LEVEL) / 2, freedom))
            reach = quantile * math.sqrt(squares / freedom / len(values))
        mean = statistics.fmean(values)
        found[name] = Spread(tuple(values), mean - reach, mean + reach)
    return found


def chance(by_network: Mapping[str, Sequence[float]]) -> float | None:
    """Return the probability of such differences between networks that are alike; see the module.

    None where the seeds do not tell: fewer than two of each, or none that differ.
    """
    from scipy import stats

    groups = list(by_network.values())
    if len(groups) < 2 or min(map(len, groups)) < 2:
        return None
    if all(len(set(values)) == 1 for values in groups):
        return None
    return float(stats.f_oneway(*groups).pvalue)


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Draw the scores, and the radius of the receptive field, of every network and seed."""
    from benchmarks import drawing

    rows = result["rows"]
    shown = {key: {**_ACCURACY, **_SHAPE}[key] for key in _DRAWN if any(_values(rows, key))}
    panels_of = [(f"{head}, %", _by_network(rows, key), 100) for key, head in shown.items()]
    largest = max(field["image_size"] for field in rows[0]["fields"])
    title = f"radius of the receptive field at {largest} px"
    panels_of.append((title, _radii(rows, largest), 1))
    labels = _labels(rows)
    figure, panels = drawing.new_panels(
        2, math.ceil(len(panels_of) / 2), size=(3.6 * math.ceil(len(panels_of) / 2), 6.4)
    )
    flat = [panel for line in panels for panel in line]
    style = drawing.styles(["seed"])["seed"]
    for panel, (head, by_network, unit) in zip(flat, panels_of, strict=False):
        for name, spread in spreads(by_network).items():
            place = labels.index(name)
            values = [unit * value for value in spread.values]
            around = [place + 0.12 * (n - (len(values) - 1) / 2) for n in range(len(values))]
            panel.plot(around, values, "o", markersize=4, markerfacecolor="white", color="#777777")
            reach = unit * (spread.high - spread.mean)
            panel.errorbar(
                [place],
                [unit * spread.mean],
                yerr=None if math.isnan(reach) else [reach],
                markersize=7,
                capsize=3,
                **style,
            )
        panel.set_xticks(range(len(labels)), labels, rotation=30 if len(labels[0]) > 5 else 0)
        panel.set_title(head, fontsize=10)
    for panel in flat[len(panels_of) :]:
        panel.set_axis_off()
    drawing.save(figure, folder / f"{result['benchmark']}.png")


def _score_table(rows: Sequence[Row], heads: Mapping[str, str]) -> str:
    shown = {key: head for key, head in heads.items() if any(_values(rows, key))}
    columns = {key: spreads(_by_network(rows, key)) for key in shown}
    lines = [
        [name, *(_score(rows, key, columns[key].get(name), name) for key in shown)]
        for name in _labels(rows)
    ]
    return markdown_table(
        ["Network", *(f"{head}, %" for head in shown.values())],
        [*lines, *_chance_line([_by_network(rows, key) for key in shown])],
    )


def _score(rows: Sequence[Row], key: str, spread: Spread | None, name: str) -> str:
    if spread is None:
        return NOT_YET_RUN
    low, high = spread.low, spread.high
    if len(spread.values) == 1:
        (score,) = (row["scores"][key] for row in rows if row["label"] == name)
        if score["low"] is not None:
            low, high = score["low"], score["high"]
    return _with_interval(100 * spread.mean, 100 * low, 100 * high)


def _chance_line(columns: Sequence[Mapping[str, Sequence[float]]]) -> list[list[str]]:
    chances = [chance(column) for column in columns]
    if all(one is None for one in chances):
        return []
    return [["chance", *("" if one is None else f"p = {one:.2g}" for one in chances)]]


def _field_table(rows: Sequence[Row]) -> str:
    """Return sides of squares and radii of the last map, at each size of the images."""
    sizes = sorted({field["image_size"] for field in rows[0]["fields"]})
    header = ["Network"]
    for size in sizes:
        header += [
            f"{size} px: radius",
            *(f"{share} % of {kind}" for kind in "AP" for share in ("50", "99")),
        ]
    lines = []
    for name in _labels(rows):
        line = [name]
        for size in sizes:
            line.append(_spread(spreads(_radii(rows, size))[name]))
            of_network = [_last_field(row, size) for row in rows if row["label"] == name]
            for kind in "AP":
                for place in (2, 3):
                    line.append(_sides([field[kind][place] for field in of_network]))
        lines.append(line)
    return markdown_table(header, lines)


def _tap_table(rows: Sequence[Row]) -> str:
    first = {row["label"]: row for row in reversed(rows)}
    lines = []
    for name in _labels(rows):
        taps = first[name]["taps"]
        lines.append([
            name,
            f"{taps['local_size']}, {taps['dilated_size']} x dilation {taps['dilation']}",
            ", ".join(str(live) for live in taps["live"]),
            f"{first[name]['parameters']:,}",
        ])  # fmt: skip
    maps = ", ".join(map(str, rows[0]["taps"]["maps"]))
    header = [
        "Network",
        "local and dilated taps",
        f"of these live, maps of {maps} px",
        "parameters",
    ]
    return markdown_table(header, lines)


def _conditions(result: Mapping[str, Any], folder: Path) -> str:
    conditions, name = result["conditions"], result["benchmark"]
    settings = conditions["settings"]
    counted = result["rows"][0]["scores"].get("clean/top1", {}).get("num_images", 0)
    versions = ", ".join(f"{of} {v}" for of, v in conditions["versions"].items() if "not" not in v)
    said = (
        f"`{conditions['command']}`, {conditions['date'][:10]}, commit {conditions['commit']}: "
        f"{settings['epochs']} epochs, {settings['seeds']} seeds, {counted:,} test images; "
        f"{conditions['cores']} cores of {conditions['processor']}; {versions}."
    )
    notes = sorted({
        f"{key.partition('/')[0]}: {score['note']}"
        for row in result["rows"]
        for key, score in row["scores"].items()
        if score["note"] and key.endswith(("shape_bias", "mean_error"))
    })  # fmt: skip
    picture = f"![{name}]({folder.name}/{name}.png)" if (folder / f"{name}.png").exists() else ""
    return "\n\n".join(filter(None, [said, " ".join(f"{note}." for note in notes), picture]))


def _labels(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["label"] for row in rows))


def _values(rows: Sequence[Row], key: str) -> list[float]:
    values = (row["scores"].get(key, {}).get("value") for row in rows)
    return [value for value in values if value is not None]


def _by_network(rows: Sequence[Row], key: str) -> dict[str, list[float]]:
    found = {name: _values([r for r in rows if r["label"] == name], key) for name in _labels(rows)}
    return {name: values for name, values in found.items() if values}


def _radii(rows: Sequence[Row], size: int) -> dict[str, list[float]]:
    return {
        name: [_last_field(row, size)["radius"] for row in rows if row["label"] == name]
        for name in _labels(rows)
    }


def _last_field(row: Row, size: int) -> dict[str, Any]:
    field: dict[str, Any] = [one for one in row["fields"] if one["image_size"] == size][-1]
    return field


def _spread(spread: Spread) -> str:
    return _with_interval(spread.mean, spread.low, spread.high)


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:.1f}" if math.isnan(low) else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _sides(sides: Sequence[int | None]) -> str:
    known = sorted(side for side in sides if side is not None)
    if len(known) < len(sides):
        return "all"
    return str(known[0]) if known[0] == known[-1] else f"{known[0]} to {known[-1]}"
