"""The guide docs/your_own_photos.md, every command of it run as it is written."""

import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from lska_jax.data.opening import open_source

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "your_own_photos.md"
CLASSES, EACH = ("cat", "frog", "ship"), 100


def commands() -> list[list[str]]:
    blocks = re.findall(r"(?<!-->\n)```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line]


def write_photos(root: Path) -> None:
    """Write 300 photos: of CIFAR-10 where LSKA_JAX_CIFAR10 names a tar of it, else of digits."""
    archive = os.environ.get("LSKA_JAX_CIFAR10")
    if archive:
        counts = dict.fromkeys(CLASSES, 0)
        with tarfile.open(archive) as tar:
            for member in tar:
                label = Path(member.name).parent.name
                if member.isfile() and "train" in member.name and counts.get(label, EACH) < EACH:
                    counts[label] += 1
                    image = Image.open(io.BytesIO(tar.extractfile(member).read()))
                    _save(image, root / label / f"{counts[label]:03}.jpg")
        return
    source = open_source("digits", split="all")
    for label, name in enumerate(CLASSES):
        chosen = [n for n in range(len(source)) if source.labels[n] == label][:EACH]
        for number, n in enumerate(chosen, 1):
            image = Image.fromarray(source[n].image[..., 0]).resize((32, 32))
            _save(image.convert("RGB"), root / name / f"{number:03}.jpg")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)


def test_the_guide_has_a_command_for_every_step():
    used = [command[1] for command in commands()]
    looked_at = ["predict", "evaluate", "explain"]
    assert used == ["train", "train", *looked_at, "publish", "robustness"]


@pytest.mark.slow
def test_the_guide_works_as_it_is_written(tmp_path):
    write_photos(tmp_path / "photos")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    # A newcomer's: nothing is compiled yet.
    cache = str(tmp_path / "cache")
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": cache}
    began, used = time.monotonic(), []
    for name, *options in commands():
        assert name == "lska-jax"
        started, cpu = time.monotonic(), os.times()
        done = subprocess.run(
            [sys.executable, "-m", "lska_jax", *options],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{options}\n{done.stdout}\n{done.stderr}"
        after = os.times()
        core_seconds = after[2] + after[3] - cpu[2] - cpu[3]
        used.append(core_seconds)
        print(f"{options[0]}: {time.monotonic() - started:.0f} s, {core_seconds:.0f} core-seconds")
        print(done.stdout[-1500:])
    print(f"Whole guide: {time.monotonic() - began:.0f} s, {sum(used):.0f} core-seconds")
    for made in (
        *("runs/photos/config.json", "predictions.csv", "photo_model/model.safetensors"),
        *("runs/photos/evaluation.json", "robustness/report/report.html"),
        *("runs/photos/report/report.html", "explained/explain.html"),
    ):
        assert (tmp_path / made).is_file(), made
