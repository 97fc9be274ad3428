"""The notebooks: stored without outputs, and run from start to end in their reduced form."""

import importlib
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

import lska_jax

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_SECONDS = 180


def cells_of(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text())["cells"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_stored_and_the_first_code_chooses_place_and_form(notebook):
    code = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []
    first = "".join(code[0]["source"])
    assert re.search("^WHERE = ", first, re.MULTILINE)
    assert re.search("^REDUCED = False$", first, re.MULTILINE)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_only_public_names_are_used(notebook):
    code = "".join("".join(c["source"]) for c in cells_of(notebook) if c["cell_type"] == "code")
    assert not re.search(r"(from|import) lska_jax\.", code)
    for dotted in set(re.findall(r"\blska_jax((?:\.\w+)+)", code)):
        package, public = ROOT / "lska_jax", lska_jax.__all__
        for name in dotted.split(".")[1:]:
            assert name in public, dotted
            package /= name
            if not package.is_dir():
                break
            public = importlib.import_module(f"lska_jax.{name}").__all__


@pytest.mark.notebooks
@pytest.mark.skipif(not importlib.util.find_spec("nbclient"), reason="pip install nbclient")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_start_to_end(notebook, tmp_path, monkeypatch):
    import nbclient
    import nbformat

    found = nbformat.read(notebook, as_version=4)
    first = next(cell for cell in found.cells if cell.cell_type == "code")
    first.source = re.sub("(?m)^WHERE = .*$", 'WHERE = ""', first.source)
    first.source = re.sub("(?m)^REDUCED = .*$", "REDUCED = True", first.source)
    # The settings of the tests are none of a user's, but for what makes compiling quick.
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    client = nbclient.NotebookClient(
        found,
        timeout=MAX_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    shown = [output for cell in found.cells for output in cell.get("outputs", ())]
    assert [one for one in shown if one.output_type == "error"] == []
    assert any("image/png" in one.get("data", {}) for one in shown)
