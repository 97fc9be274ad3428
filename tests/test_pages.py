"""Every code block of the guides and of README is run, or the page says why not.

The quick tests hold each command against the programs' own parsers and configs, and each import
against the packages. The slow ones run every page from its first block to its last in a folder that
looks like a checkout, with a few things beside it that a reader is said to have.
"""

import ast
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import ROOT, Block, blocks_of, pages_of_section, prose_of
from page_commands import commands_in, problem_with

GUIDES = [ROOT / "README.md", *pages_of_section("Start"), *pages_of_section("Guides")]
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "findings/README.md")]
MEASURED = pages_of_section("Measured")
# It is followed by a test of its own, as docs/add_a_model.md is.
RUN_ELSEWHERE = {"docs/your_own_photos.md": "tests/test_your_own_photos.py"}

# What the test runs in place of what a page says, so that a page takes a minute or two: fewer
# epochs, smaller networks, and safetensors, since PyTorch is no requirement.
BRIEFLY = (
    "--config.optimizer.epochs=2 --config.optimizer.warmup_epochs=1 "
    "'--config.model.dims=(8,8,8)' --config.training.batch_size=240"
)
SMALL = "--model van_lska_tiny '--config.model.dims=(8,8,8,8)' '--config.model.depths=(1,1,1,1)'"
DIGITS = {"--config digits\n": f"--config digits {BRIEFLY}\n"}
DIGITS_FILE = {"--config configs/digits.py": f"--config configs/digits.py {BRIEFLY}"}
INSTEAD: dict[str, dict[str, str]] = {
    "README.md": {
        **DIGITS_FILE,
        "lska-jax train --config digits ": f"lska-jax train --config digits {BRIEFLY} ",
        "--model van_lska_tiny": f"{SMALL} --epochs 1",
        "checkpoint.pth": "checkpoint.safetensors",
    },
    "docs/start.md": DIGITS,
    "docs/data.md": {"folder:photos": "folder:photos --image_size 32 --batch_size 8 --seconds 0.5"},
    "docs/training.md": {**DIGITS_FILE, "--model van_lska_tiny --epochs 20": f"{SMALL} --epochs 1"},
    "docs/dense.md": {
        "digits_segmentation.py": "digits_segmentation.py --dry_run",
        "digits_detection.py  ": "digits_detection.py --dry_run ",
        "digits_detection.py:mask_rcnn": "digits_detection.py:mask_rcnn --dry_run",
    },
    "docs/fine_tune.md": {"--epochs 10": "--epochs 2", "--epochs 30": "--epochs 2"},
    "docs/weights.md": {
        **DIGITS,
        "checkpoint.pth": "checkpoint.safetensors",
        "exported.pth": "exported.safetensors",
        "--from cifar10": "--from cifar10 --epochs 1",
    },
    "docs/tpu_pods.md": DIGITS_FILE,
    "docs/reliability.md": DIGITS_FILE,
}
# What of a checkout the pages name, and what the reader of a page is said to have besides.
CHECKOUT = ("train.py", "eval_robustness.py", "configs", "requirements.txt")
BELONGINGS: dict[str, tuple[str, ...]] = {
    "README.md": ("photos", "photo.jpg", "checkpoint.safetensors", "DATA"),
    "docs/install.md": ("photo.jpg",),
    "docs/data.md": ("photos",),
    "docs/training.md": ("photos",),
    "docs/fine_tune.md": ("photos", "pretrained"),
    "docs/explain.md": ("photos", "photo.jpg", "k7", "k11", "k23", "k35", "k53"),
    "docs/dense.md": ("imagenet_model",),
    "docs/robustness.md": ("imagenet_model", "other_model", "DATA"),
    "docs/weights.md": ("photos", "photo.jpg", "checkpoint.safetensors"),
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def is_run(block: Block) -> bool:
    return block.language != "text" and not block.reason


RUN_HERE = [
    page
    for page in GUIDES
    if name_of(page) not in RUN_ELSEWHERE and any(map(is_run, blocks_of(page)))
]


@pytest.mark.parametrize("page", [*GUIDES, *OTHERS], ids=name_of)
def test_every_block_is_run_or_says_why_not(page):
    blocks = blocks_of(page)
    assert {block.language for block in blocks} <= {"bash", "python", "text"}
    # Nothing is code that is not fenced, and no fence was missed.
    prose = prose_of(page)
    assert "```" not in prose and not re.search(r"^    \S", prose, re.MULTILINE)
    runs = [block.place for block in blocks if is_run(block)]
    assert not runs or page in GUIDES


@pytest.mark.parametrize("page", [*GUIDES, *OTHERS, *MEASURED], ids=name_of)
def test_commands_have_options_configs_and_files_that_exist(page):
    fenced = [block.text for block in blocks_of(page) if block.language == "bash"]
    indented = re.findall(r"(?:^    .*\n)+", prose_of(page), re.MULTILINE)
    wrong = [
        f"{' '.join(words)}: {problem}"
        for text in [*fenced, *indented]
        for words in commands_in(text)
        if (problem := problem_with(words))
    ]
    assert wrong == []


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_shell_and_python_parse_and_what_they_import_exists(page):
    for block in blocks_of(page):
        if block.language == "bash":
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
            assert done.returncode == 0, f"{block.place}: {done.stderr}"
        elif block.language == "python" and name_of(page) not in RUN_ELSEWHERE:
            for node in ast.walk(ast.parse(block.text, block.place)):
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(node.module)
                    lacking = [
                        alias.name
                        for alias in node.names
                        if not hasattr(module, alias.name)
                        and not importlib.util.find_spec(f"{node.module}.{alias.name}")
                    ]
                    assert lacking == [], f"{block.place}: {node.module} has no {lacking}"
                elif isinstance(node, ast.Import):
                    assert all(importlib.util.find_spec(alias.name) for alias in node.names)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("lska-jax trian --config digits", "no command trian"),
        ("lska-jax train --config digts", "Did you mean digits"),
        ("lska-jax predict runs/a photo.jpg --tpo 1", "Did you mean --top"),
        ("lska-jax publish runs/a --overwrite=1", "ignored explicit argument"),
        ("python train.py --config configs/digits.py --config.optimizer.epoch=1", "epochs"),
        ("python train.py --data photos --config.data.pad=much", "has the wrong type"),
        ("x=1 python -m lska_jax evaluate --workdir runs/a --config.data.veiws=flip", "views"),
        ("for k in 8; do lska-jax train --config digits:$k; done", "8"),
        ("while lska-jax train; do :; done", "--config is missing"),
        ("cd runs && python -m benchmarks.op", "no benchmarks.op"),
    ],
)
def test_a_wrong_command_is_found(command, problem):
    found = [wrong for words in commands_in(command) if (wrong := problem_with(words))]
    assert len(found) == 1 and problem in found[0]


def test_what_is_run_in_place_of_a_page_is_said_by_it():
    for name, changes in INSTEAD.items():
        texts = [block.text for block in blocks_of(ROOT / name) if is_run(block)]
        assert [old for old in changes if not any(old in text for text in texts)] == [], name


def test_pages_that_are_run_elsewhere_are():
    for name, test in RUN_ELSEWHERE.items():
        assert Path(name).name in (ROOT / test).read_text()


@pytest.fixture(scope="module")
def belongings(tmp_path_factory) -> Path:
    """Return a folder of what readers have: digits for photos, models that were never trained."""
    from PIL import Image
    from small_models import ONE_BLOCK, small_model

    from lska_jax import create_model
    from lska_jax.data.opening import open_source
    from lska_jax.weights import export_checkpoint
    from lska_jax.weights.class_names import imagenet_names

    folder = tmp_path_factory.mktemp("belongings")
    digits = open_source("digits", split="test")
    classes = ("cat", "frog", "ship")
    images = [Image.fromarray(digits[n].image[..., 0]).resize((32, 32)) for n in range(24)]
    for n, image in enumerate(images):
        place = folder / "photos" / classes[n % 3] / f"{n}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.convert("RGB").save(place)
    for place in ("photo.jpg", "DATA/imagenet-a/n01498041/0.jpg"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        images[0].convert("RGB").save(folder / place)

    thousand = {"num_classes": 1000, **ONE_BLOCK}
    for name in ("pretrained", "other_model"):
        write_model(folder / name, small_model(**thousand), imagenet_names())
    for k in (7, 11, 23, 35, 53):
        write_model(folder / f"k{k}", small_model(k=k, num_classes=3), classes)
    write_model(folder / "imagenet_model", create_model("van_lska_tiny"), imagenet_names())
    export_checkpoint(folder / "imagenet_model", folder / "checkpoint.safetensors")
    return folder


def write_model(folder: Path, model: object, class_names: tuple[str, ...]) -> None:
    from lska_jax.weights import ModelFacts, write_model_folder
    from lska_jax.weights.pretrained import arrays_of

    prepared = model.preprocessing._replace(image_size=32)
    facts = ModelFacts(config=model.config, preprocessing=prepared, class_names=class_names)
    write_model_folder(folder, facts, arrays_of(model))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_HERE, ids=name_of)
def test_the_blocks_of_a_page_run_in_order(page, belongings, tmp_path):
    blocks = []
    for block in filter(is_run, blocks_of(page)):
        text = block.text
        for old, new in INSTEAD.get(name_of(page), {}).items():
            text = text.replace(old, new)
        blocks.append((block.place, block.language, text))
    reader = tmp_path / "reader"
    reader.mkdir()
    for name in CHECKOUT:
        (reader / name).symlink_to(ROOT / name)
    for name in BELONGINGS.get(name_of(page), ()):
        (reader / name).symlink_to(belongings / name)
    (tmp_path / "blocks.json").write_text(json.dumps(blocks))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "page_program.py"), str(tmp_path / "blocks.json")],
        cwd=reader,
        env=reader_environment(tmp_path / "bin"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:]


def reader_environment(programs: Path) -> dict[str, str]:
    """Return a reader's environment: the command installed, and none of the settings of tests."""
    programs.mkdir()
    command = programs / "lska-jax"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lska_jax "$@"\n')
    command.chmod(0o755)
    # As in the tests, what is compiled is compiled quickly; programs of one page serve the next.
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    cache = str(programs.parents[1] / "cache")
    kept = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "XDG_CACHE_HOME": cache}
    path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    others = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    return {**others, **kept, "PYTHONPATH": str(ROOT), "PATH": os.pathsep.join(path)}
