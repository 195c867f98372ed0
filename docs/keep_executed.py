"""Keep the notebooks that outputs/ holds in docs/executed/, small and without traces of the machine.

`make executed` runs it at the root of the repository, where GitHub and the book then show the outputs.
"""

import base64
import io
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

_COLOURS = 128
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|work|tmp)/[\w./-]+")
_SHOWN = ("text/html", "text/plain", "image/png")


def kept(notebook: NotebookNode) -> NotebookNode:
    """Notebook with its sources and what is seen of outputs; of metadata, kernel and tags alone."""
    notebook.metadata = {
        key: value for key, value in notebook.metadata.items() if key in ("kernelspec", "language_info")
    }
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        if "injected-parameters" in (tags or ()):
            cell.id = "injected-parameters"
        for output in cell.get("outputs", ()):
            if "data" in output:
                output.data = {kind: output.data[kind] for kind in _SHOWN if kind in output.data}
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _with_palette(output.data["image/png"])
    return notebook


def _with_palette(png: str) -> str:
    """Picture in base64 with at most so many colours, a third of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    written = io.BytesIO()
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def faults(notebook: NotebookNode) -> list[str]:
    """What must not be kept: outputs that are errors, or name a path of a machine."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                found.append(f"the error {output.ename}")
            told = output.get("data", {}).items()
            texts = [output.get("text", ""), *(text for kind, text in told if kind.startswith("text/"))]
            found += [match[0] for text in texts for match in _MACHINE_PATH.finditer(text)]
    return found


def main() -> None:
    """Keep all that are there, and leave others as they are."""
    executed = sorted(Path("outputs").glob("[0-9]*.ipynb"))
    if not executed:
        sys.exit("no executed notebooks in outputs/; make figures or make reproduce executes them")
    folder = Path("docs", "executed")
    folder.mkdir(parents=True, exist_ok=True)
    for path in executed:
        notebook = kept(nbformat.read(path, as_version=4))
        if wrong := faults(notebook):
            sys.exit(f"{path} must be executed whole, without paths of a machine, it has {wrong[0]}")
        nbformat.write(notebook, folder / path.name)


if __name__ == "__main__":
    main()
