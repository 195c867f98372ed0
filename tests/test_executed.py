"""Executed notebooks that GitHub and the book show: today's sources, small, no trace of a machine."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from nbformat import v4
from PIL import Image

from amc_utils.runtime.paths import REPOSITORY

FOLDER = REPOSITORY / "docs" / "executed"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
SCRIPT = REPOSITORY / "docs" / "keep_executed.py"
PATH_OF_A_MACHINE = re.compile(r"/(?:home|root|tmp|work|Users|mnt|opt|usr)/|\b[A-Z]:\\")


def executed(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def test_every_notebook_was_executed():
    notebooks = {path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    assert {name.partition(".")[0] for name in NAMES} == notebooks
    assert notebooks <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_sources_are_those_of_the_notebook(name):
    source = nbformat.read(REPOSITORY / "notebooks" / f"{name.partition('.')[0]}.ipynb", as_version=4)
    cells = [cell for cell in executed(name).cells if cell.id != "injected-parameters"]
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        (cell.cell_type, cell.source) for cell in source.cells
    ], "make figures or make record, then make executed"
    code = [cell for cell in executed(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_tells_of_the_machine_and_no_output_failed(name):
    notebook = executed(name)
    assert notebook.metadata.keys() <= {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert cell.metadata.keys() <= {"tags"}
        for output in cell.get("outputs", ()):
            assert output.output_type != "error"
            shown = [output.get("text", ""), *output.get("data", {}).values()]
            text = "\n".join(text for text in shown if text not in pictures(notebook))
            assert not PATH_OF_A_MACHINE.search(cell.source + text)
            assert output.get("data", {}).keys() <= {"text/html", "text/plain", "image/png"}


def test_all_together_are_small():
    assert sum((FOLDER / f"{name}.ipynb").stat().st_size for name in NAMES) < 4e6


def keep(root):
    return subprocess.run([sys.executable, SCRIPT], cwd=root, capture_output=True, text=True)


def test_outputs_are_kept_and_the_rest_is_not(tmp_path):
    """Against a picture of a thousand colours and each kind of metadata that tools leave."""
    colours = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    written = io.BytesIO()
    Image.fromarray(colours).save(written, "PNG")
    data = {"image/png": base64.b64encode(written.getvalue()).decode(), "text/plain": "<Figure>"}
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    drawn = v4.new_output("display_data", data | view)
    told = v4.new_output("stream", text="told")
    cell = v4.new_code_cell("draw()", outputs=[drawn, told], execution_count=1)
    cell.metadata = {"tags": ["shown"], "papermill": {"duration": 1.0}, "execution": {}}
    notebook = v4.new_notebook(cells=[cell])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook.metadata |= {"widgets": {}, "papermill": {"output_path": "/home/me/1.ipynb"}}
    (tmp_path / "docs").mkdir()
    (tmp_path / "outputs").mkdir()
    nbformat.write(notebook, tmp_path / "outputs" / "01_first.ipynb")
    done = keep(tmp_path)
    assert done.returncode == 0, done.stderr
    kept = nbformat.read(tmp_path / "docs" / "executed" / "01_first.ipynb", as_version=4)
    assert kept.metadata.keys() == {"kernelspec"}
    assert kept.cells[0].metadata == {"tags": ["shown"]}
    assert kept.cells[0].outputs[0].data.keys() == {"image/png", "text/plain"}
    assert kept.cells[0].outputs[1].text == "told"
    picture = Image.open(io.BytesIO(base64.b64decode(pictures(kept)[0])))
    assert (picture.size, picture.mode) == ((40, 40), "P")
    difference = np.asarray(picture.convert("RGB")).astype(int) - colours
    assert 0 < np.abs(difference).mean() < 30


def test_without_executed_notebooks_one_sentence_says_what_makes_them(tmp_path):
    (tmp_path / "docs").mkdir()
    done = keep(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "no executed notebooks in outputs/; make figures or make reproduce executes them\n"
    )
    assert not (tmp_path / "docs" / "executed").exists()


@pytest.mark.parametrize(("output", "wrong"), [
    (v4.new_output("error", ename="KeyError", evalue="x", traceback=[]), "the error KeyError"),
    (v4.new_output("stream", text="read /home/me/data.h5"), "/home/me/data.h5"),
    (v4.new_output("display_data", {"text/html": "<a href='/tmp/x.csv'>"}), "/tmp/x.csv"),
])  # fmt: skip
def test_failed_executions_and_paths_of_a_machine_are_not_kept(output, wrong, tmp_path):
    (tmp_path / "outputs").mkdir()
    notebook = v4.new_notebook(cells=[v4.new_code_cell("1", outputs=[output])])
    nbformat.write(notebook, tmp_path / "outputs" / "01_x.ipynb")
    done = keep(tmp_path)
    assert done.returncode == 1
    assert wrong in done.stderr
    assert not list((tmp_path / "docs" / "executed").glob("*"))
