"""Draw conflicts of shape and texture: ``python -m benchmarks.conflict_sheet folder:cifar10.tar``.

A column a stimulus: the image of its shape, that of its texture, and what both ways make of them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser("python -m benchmarks.conflict_sheet", description=__doc__)
    parser.add_argument("source", help="labelled images, see lska_jax.data.opening")
    parser.add_argument("--split", default="test", help="(default: test)")
    parser.add_argument("--count", type=int, default=10, help="of stimuli (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the textures (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("docs/science/made_conflicts.jpg"))
    options = parser.parse_args(argv)
    import numpy as np

    from lska_jax.data.opening import open_source
    from lska_jax.robustness.corruptions.sheet import draw_sheet
    from lska_jax.robustness.sets.made_conflict import WAYS, MadeConflicts

    source = open_source(options.source, split=options.split)
    made = {way: MadeConflicts(source, way, seed=options.seed) for way in WAYS}
    any_way = next(iter(made.values()))
    count = min(options.count, len(source))
    # Spread over the classes, between the first and the last image.
    chosen = ((np.arange(count) + 0.5) * len(source) / count).astype(int).tolist()
    rows: dict[str, dict[str, np.ndarray]] = {name: {} for name in ("shape", "texture", *WAYS)}
    for number, index in enumerate(chosen, 1):
        shape, texture = any_way.pair(index)
        classes = (any_way.labels[index], any_way.textures[index])
        for name, pixels, of in zip(("shape", "texture"), (shape, texture), classes, strict=True):
            rows[name][f"{number} {source.class_names[of]}"] = pixels
        for way, stimuli in made.items():
            rows[way][f"{number} {way}"] = np.asarray(stimuli[index].image)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(rows, tile_size=96).save(options.out, quality=92)
    print(f"Wrote {options.out}.")


if __name__ == "__main__":
    main(sys.argv[1:])
