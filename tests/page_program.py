"""Run the blocks of a page in order: its Python in one namespace, its shell in bash.

    python page_program.py BLOCKS.json

BLOCKS.json holds [place, language, text] of each; the current folder is the reader's.
"""

import json
import subprocess
import sys
from pathlib import Path


def run(blocks: list[tuple[str, str, str]]) -> None:
    """Run blocks; the first that fails ends the process with its own message."""
    names: dict[str, object] = {"__name__": "__main__"}
    for place, language, text in blocks:
        print(f"==== {place}", flush=True)
        if language == "python":
            exec(compile(text, place, "exec"), names)
        elif subprocess.run(["bash", "-euo", "pipefail", "-c", text]).returncode:
            sys.exit(f"{place} failed.")


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
