"""Train small networks with several seeds, and measure what came out: a study.

What ``benchmarks.kernel_sizes`` and ``benchmarks.small_networks`` share. A study trains each of its
networks with each seed by ``lska_jax.train``, sweeps all of them with
``lska_jax.robustness.evaluate``, looks into them with ``lska_jax.receptive_field``, and writes one
row for each network and seed. Every part goes on where it was stopped, also after a kill: a
training at its latest checkpoint, the sweep at its next cell. The same command again is all.
"""

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import Row

SUITE = "imagenet,made_conflict,imagenet_c"
CUE_CONFLICT = "cue_conflict"
# Of the results of a sweep, what a row keeps: scores of whole sets, and errors by corruption.
_KEPT = re.compile(
    r"(clean/top1|clean_c/(mean_error|mean_error_19|retention_15)|clean_c/error/\w+"
    r"|(made_conflict|cue_conflict)/(shape_bias|decided)(/patches|/fourier)?)"
)
_FIELD_IMAGES = 32
# The small fields of digits and CIFAR-10 end at the border: they are measured on larger ones too.
FIELD_SCALES = (1, 4)


class Member(NamedTuple):
    """A network of a study.

    Attributes:
      label: in tables.
      config: by name, with an argument, see ``lska_jax.load_config``.
      facts: what its rows say besides.
    """

    label: str
    config: str
    facts: dict[str, Any]


class Trained(NamedTuple):
    """A network of one seed.

    Attributes:
      member: which.
      seed: of everything drawn in training.
      place: folder of its run.
    """

    member: Member
    seed: int
    place: Path

    @property
    def name(self) -> str:
        """What it is called in the results of the sweep."""
        return f"{self.member.label} seed {self.seed}"


def option_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every study; unknown ones change its configs."""
    from benchmarks import results

    parser = results.option_parser(module, description)
    add = parser.add_argument
    add("--data", choices=("digits", "cifar10"), default="digits", help="(default: digits)")
    add("--source", help="in place of the config's, e.g. folder:cifar10.tar")
    add("--seeds", type=int, default=3, metavar="N", help="0 to N - 1 (default: 3)")
    add("--epochs", type=int, metavar="N", help="(default: the config's)")
    add("--limit", type=int, default=0, metavar="N", help="images a cell of the sweep (0: all)")
    add("--suite", default=SUITE, help=f"of the sweep; what is left out can follow ({SUITE})")
    add("--stimuli", type=Path, metavar="DIR", help="folder that holds Geirhos' stimuli")
    add("--runs", type=Path, metavar="DIR", help="of the trainings and the sweep (default: runs/)")
    return parser


def conduct(
    study: str, members: Sequence[Member], options: argparse.Namespace, changes: Sequence[str]
) -> None:
    """Train, sweep, look inside; write the rows and their picture, print the tables.

    Args:
      study: name of the study; that of its result is ``f"{study}_{data}"``.
      members: its networks.
      options: of ``option_parser``.
      changes: ``--config.KEY=VALUE`` of the command line, for all of them.
    """
    from benchmarks import results, trained_tables

    conditions = results.start("minutes to hours, said below", is_quick=options.quick)
    conditions["command"] = without_folders(conditions["command"])
    name = f"{study}_{options.data}"
    options.out = options.out or (None if options.quick else trained_tables.FOLDER)
    folder = results.output_folder(options)
    runs = (folder if options.quick else options.runs or Path("runs")) / name
    trained = [
        Trained(member, seed, runs / f"{member.label}-seed{seed}".replace(" ", "_"))
        for seed in range(options.seeds)
        for member in members
    ]
    configs = [_config(one, options, changes) for one in trained]
    started = time.monotonic()
    for number, (one, config) in enumerate(zip(trained, configs, strict=True)):
        _say(f"training {one.name}, {number + 1} of {len(trained)}", started, number, len(trained))
        _train(one, config)
    started = time.monotonic()
    print(f"Sweeping {len(trained)} networks; its own line says how long that takes.", flush=True)
    summaries = _sweep(trained, configs[0], options, runs / "sweep")
    rows = []
    for number, (one, config) in enumerate(zip(trained, configs, strict=True)):
        _say(f"receptive fields of {one.name}", started, number, len(trained))
        rows.append(_row(one, config, summaries[one.name]))
    result = results.write_result(
        folder,
        name,
        conditions={**conditions, "settings": _settings(configs[0], options, changes)},
        rows=rows,
        is_quick=options.quick,
    )
    for table in trained_tables.tables(result).values():
        print(f"\n{table}")
    trained_tables.draw(result, folder)


def without_folders(command: str) -> str:
    """Return a command without the folders of absolute paths, those of one machine."""
    return re.sub(r"(?<=[\s:=])/(?:[^\s/]+/)*(?=[^\s/])", "", command)


def _config(one: Trained, options: argparse.Namespace, changes: Sequence[str]) -> Any:
    from lska_jax import load_config
    from lska_jax.commands.config_option import change_config

    config = load_config(one.member.config)
    config.training.seed = one.seed
    if options.source:
        config.data.source = options.source
    if options.epochs:
        config.optimizer.epochs = options.epochs
        config.optimizer.warmup_epochs = min(config.optimizer.warmup_epochs, options.epochs // 4)
    if config.model.in_channels == 1:
        # The corruptions are of colour images; greys become three equal channels.
        config.model.in_channels = 3
        config.data.mean, config.data.std = 3 * config.data.mean, 3 * config.data.std
    if left := change_config(config, changes):
        raise SystemExit(f"Not understood: {' '.join(left)}; other options are --config.KEY=VALUE.")
    # Chosen on the test split, the best of several evaluations would flatter all of them.
    config.training.eval_every_epochs = config.optimizer.epochs + config.optimizer.cooldown_epochs
    return config


def _train(one: Trained, config: Any) -> None:
    import lska_jax
    from lska_jax.training.trainer import Interrupted

    try:
        lska_jax.train(config, workdir=one.place)
    except Interrupted as interruption:
        print(interruption)
        raise SystemExit(75) from None  # as all commands that can go on


def _sweep(
    trained: Sequence[Trained], config: Any, options: argparse.Namespace, out: Path
) -> dict[str, Any]:
    from lska_jax.robustness import evaluate

    suite = "imagenet,made_conflict" if options.quick else options.suite
    if options.stimuli:
        suite = f"{suite},{CUE_CONFLICT}"
    summaries = evaluate(
        {one.name: str(one.place) for one in trained},
        out=out,
        suite=suite,
        data_root=str(options.stimuli) if options.stimuli else None,
        generate=True,
        clean=config.data.source,
        clean_split=config.data.eval_split,
        limit=options.limit,
        batch_size=config.training.eval_batch_size,
    )
    return {summary.model.name: summary for summary in summaries}


def _row(one: Trained, config: Any, summary: Any) -> Row:
    for hole in summary.holes:
        print(f"{one.name}: no {hole.cell}: {hole.reason}")
    scores = {
        key: {**stamped.score._asdict(), "num_images": stamped.num_images, "note": stamped.note}
        for key, stamped in summary.scores.items()
        if _KEPT.fullmatch(key)
    }
    return {
        "label": one.member.label,
        "seed": one.seed,
        **one.member.facts,
        "parameters": summary.model.facts["parameters"],
        "scores": scores,
        "fields": list(_fields(one, config)),
    }


def _fields(one: Trained, config: Any) -> Iterator[dict[str, Any]]:
    """Yield how large the receptive field of each map is, on images of several sizes."""
    import numpy as np

    from lska_jax.analysis.photos import load_model
    from lska_jax.analysis.receptive_field import SHARES, extents, receptive_field
    from lska_jax.data.opening import open_source

    source = open_source(config.data.source, split=config.data.eval_split)
    chosen = np.linspace(0, len(source) - 1, min(_FIELD_IMAGES, len(source))).astype(int)
    for scale in one.member.facts.get("field_scales", FIELD_SCALES):
        side = scale * config.data.image_size
        model = load_model(one.place, image_size=side, report=lambda remark: None)
        transform = model.transform()
        pixels = np.stack([transform(source[int(index)].image) for index in chosen])
        for name, field in receptive_field(model.network, model.normalise(pixels)).items():
            sides = {
                kind: [extent.side for extent in extents(field, is_logarithmic=kind == "A")]
                for kind in "AP"
            }
            yield {
                "image_size": side,
                "map": name,
                "shares": list(SHARES),
                **sides,
                "radius": _radius(field),
            }


def _radius(field: Any) -> float:
    """Return the root mean square distance of contributions from the field's centre, in pixels."""
    import numpy as np

    rows, columns = np.indices(field.shape)
    squares = (rows - field.shape[0] // 2) ** 2 + (columns - field.shape[1] // 2) ** 2
    return float(np.sqrt(np.sum(field * squares) / np.sum(field)))


def _settings(config: Any, options: argparse.Namespace, changes: Sequence[str]) -> dict[str, Any]:
    return {
        "epochs": config.optimizer.epochs,
        "seeds": options.seeds,
        "limit": options.limit,
        "image_size": config.data.image_size,
        "changes": [without_folders(change) for change in changes],
    }


def _say(what: str, started: float, done: int, count: int) -> None:
    """Print what comes next, and how long the rest of its kind will take."""
    gone = time.monotonic() - started
    left = f", about {_minutes(gone / done * (count - done))} left" if done else ""
    print(f"{what}; {_minutes(gone)} gone{left}", flush=True)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min"
