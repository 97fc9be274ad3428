"""What kernels and attentions of a stage's own cost: ``python -m benchmarks.stage_choices``.

VAN tiny with one k everywhere, with a k for each stage, and with LKA in some stages: parameters,
FLOPs, and the time of a train step (forward + backward, batch 8, 224 px, float32) and of inference,
all of them alternately. ``--choices`` measures others: ``K,K,K,K``, or ``ATTENTION,...:K,...``.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.results import NOT_YET_RUN
from lska_jax.running import door

NAME = "stage_choices"
CHOICES = (
    *("7", "23", "35", "7,11,23,35", "35,23,11,7"),
    *("lska,lska,lka,lka:23", "lka,lka,lska,lska:23"),
)
QUICK_CHOICES = ("7", "lka:7")
_EXPECTED = "5 to 10 minutes on two cores"
_BATCH_SIZE, _SIDE, _CLASSES = 8, 224, 1000
_QUICK = {"dims": (4,), "depths": (1,), "ffn_ratios": (2,)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write JSON, print the table."""
    from benchmarks import results

    parser = results.option_parser(NAME, __doc__)
    parser.add_argument("--choices", nargs="+", help=f"default: {' '.join(CHOICES)}")
    options = parser.parse_args(argv)
    choices = options.choices or (QUICK_CHOICES if options.quick else CHOICES)
    for choice in choices:
        fields_of_choice(choice)  # a mistake costs a moment
    conditions = results.start(_EXPECTED, is_quick=options.quick)
    result = results.write_result(
        results.output_folder(options),
        NAME,
        conditions=conditions,
        rows=_measure(choices, is_quick=options.quick),
        is_quick=options.quick,
    )
    print(f"\n{tables(result)[NAME]}")


def fields_of_choice(choice: str) -> dict[str, Any]:
    """Return the fields of ``VANConfig`` that a choice stands for.

    Args:
      choice: "23", "7,11,23,35", or with attentions "lka,lka,lska,lska:23".

    Raises:
      ValueError: a k that is no number.
    """
    attentions, _, sizes = choice.rpartition(":")
    try:
        ks = tuple(int(k) for k in sizes.split(","))
    except ValueError:
        raise ValueError(
            f"--choices {choice!r} is not understood; write 23, 7,11,23,35 or lka,lka,lska,lska:23."
        ) from None
    words = tuple((attentions or "lska").split(","))
    return {
        "k": ks[0] if len(ks) == 1 else ks,
        "attention": words[0] if len(words) == 1 else words,
    }


def _measure(choices: Sequence[str], *, is_quick: bool) -> list[dict[str, Any]]:
    import jax

    from benchmarks import harness, networks
    from benchmarks.progress import Progress
    from lska_jax import create_model
    from lska_jax.analysis.complexity import network_cost
    from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters

    side, batch_size = (32, 1) if is_quick else (_SIDE, _BATCH_SIZE)
    images, labels = networks.random_batch(batch_size, side, _CLASSES)
    progress = Progress(len(choices) + 1)
    rows, contenders = [], {}
    for choice in choices:
        progress.begin(f"{choice}, compiling")
        fields = fields_of_choice(choice)
        name = "van_lska_tiny"
        if isinstance(fields["attention"], str):
            name = f"van_{fields.pop('attention')}_tiny"
        model = create_model(name, **fields, **(_QUICK if is_quick else {}))
        cost = network_cost(model.config, height=side, width=side)
        functions = ModelFunctions(model)
        arrays = jax.device_put((parameters(model), batch_stats(model)))
        step = jax.jit(networks.loss_and_gradients(functions))
        infer = jax.jit(functions.evaluate)
        contenders[choice, "train"] = lambda step=step, arrays=arrays: step(*arrays, images, labels)
        contenders[choice, "inference"] = lambda infer=infer, arrays=arrays: infer(*arrays, images)
        for call in (contenders[choice, "train"], contenders[choice, "inference"]):
            jax.block_until_ready(call())
        rows.append({"choice": choice, "parameters": cost.parameters, "flops": cost.flops})
        progress.end()
    timings = harness.measure_alternately(
        {f"{choice} {mode}": call for (choice, mode), call in contenders.items()},
        seconds_each=2.0,
        min_repetitions=1 if is_quick else 15,
        max_repetitions=1 if is_quick else 30,
        show=lambda name: progress.begin(name),
    )
    progress.end()
    progress.close()
    for row in rows:
        for mode in ("train", "inference"):
            row[mode] = dataclasses.asdict(timings[f"{row['choice']} {mode}"])
    return rows


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a Markdown table: what each choice costs, beside that of k = 23."""
    from benchmarks.results import markdown_table

    by_choice = {row["choice"]: row for row in result["rows"]}
    usual = by_choice.get("23")
    lines = []
    for choice, row in by_choice.items():
        fields = fields_of_choice(choice)
        attention = fields["attention"]
        shown = attention if isinstance(attention, str) else ", ".join(attention)
        k = fields["k"]
        line = [
            shown,
            str(k) if isinstance(k, int) else ", ".join(map(str, k)),
            f"{row['parameters'] / 1e6:.3f}",
            f"{row['flops'] / 1e9:.4f}",
        ]
        for mode in ("train", "inference"):
            line.append(f"{1e3 * row[mode]['seconds']:,.0f}")
            ratio = row[mode]["seconds"] / usual[mode]["seconds"] if usual else None
            line.append(NOT_YET_RUN if ratio is None else f"{ratio:.2f}")
        lines.append(line)
    header = [
        *("Attention", "k", "parameters, M", "forward GFLOPs"),
        *("train step, ms", "to k = 23", "inference, ms", "to k = 23"),
    ]
    return {NAME: markdown_table(header, lines)}


if __name__ == "__main__":
    door.settle()
    main(sys.argv[1:])
