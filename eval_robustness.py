"""Measure models on corrupted and shifted image sets: ``python eval_robustness.py --model DIR``.

The same as ``lska-jax robustness``, from a clone. Running the same command again continues where it
was stopped; SIGTERM and Ctrl-C exit with status 75, with every finished cell in the results file.
"""

from lska_jax.running import door

if __name__ == "__main__":
    # Before anything else: a preempted machine does not wait for imports.
    door.hold_signals()

import sys

from lska_jax.commands.robustness import main

if __name__ == "__main__":
    sys.exit(main(command="python eval_robustness.py", signals=door.enter()))
