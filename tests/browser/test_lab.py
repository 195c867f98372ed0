"""Each notebook as people run it: JupyterLab in a real browser, Run All, sliders moved."""

from __future__ import annotations

import psutil
import pytest
from jupyter_api import ask, shut_down_sessions

from amc_utils.runtime.paths import REPOSITORY

SCREENSHOTS = REPOSITORY / "outputs" / "screenshots"
NAMES = sorted(path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb"))
_MINUTES = 10
_RUN_ALL = """async () => {
    const app = window.jupyterapp;
    await app.commands.execute('notebook:run-all-cells');
    const cells = app.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code');
    return cells.map(cell => ({
        count: cell.model.executionCount,
        outputs: cell.model.outputs.toJSON().map(output => [
            output.output_type, output.ename || '', output.evalue || '', Object.keys(output.data || {})
        ]),
    }));
}"""
_SHOW_ALL = """() => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    window.jupyterapp.shell.collapseLeft();
    const bottom = cell => cell.node.offsetTop + cell.node.offsetHeight;
    return Math.max(...notebook.widgets.map(bottom));
}"""
# Time from the key to the new image on the page, in milliseconds.
_PRESS = """([handle, key]) => new Promise(resolve => {
    const image = document.querySelector('.jp-OutputArea-output img.widget-image');
    const before = performance.now();
    image.addEventListener('load', () => resolve(performance.now() - before), {once: true});
    document.querySelectorAll('.noUi-handle')[handle].dispatchEvent(
        new KeyboardEvent('keydown', {key: key, bubbles: true}));
})"""


@pytest.fixture
def page(browser, lab):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(_MINUTES * 60_000)
    yield page
    page.close()
    shut_down_sessions(lab)


def open_notebook(page, lab, name):
    page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb?reset")
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel"
        "?.status === 'idle'"
    )


def kernels():
    """Kernel processes of the server, told by their command."""
    own = psutil.Process().children(recursive=True)
    return [process for process in own if "ipykernel_launcher" in " ".join(process.cmdline())]


def test_closed_notebooks_leave_no_kernel(lab):
    """Without a browser: the sessions that pages would open, and their end."""
    for name in NAMES[:2]:
        notebook = {"path": f"{name}.ipynb", "name": name, "type": "notebook"}
        ask(lab, "sessions", "POST", **notebook, kernel={"name": "python3"})
    assert len(kernels()) == 2
    shut_down_sessions(lab)
    assert ask(lab, "kernels") == []
    assert kernels() == []


@pytest.mark.parametrize("name", NAMES)
def test_run_all_leaves_no_error(page, lab, name):
    open_notebook(page, lab, name)
    cells = page.evaluate(_RUN_ALL)
    errors = [output for cell in cells for output in cell["outputs"] if output[0] == "error"]
    assert not errors
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    height = page.evaluate(_SHOW_ALL)
    page.set_viewport_size({"width": 1280, "height": height + 200})
    page.evaluate("document.querySelectorAll('.jp-WindowedPanel-outer').forEach(n => n.scrollTo(0, 0))")
    page.wait_for_timeout(1000)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_slider_moves_the_image(page, lab):
    open_notebook(page, lab, "01_data_exploration")
    page.evaluate(_RUN_ALL)
    image = page.locator(".jp-OutputArea-output img.widget-image")
    image.scroll_into_view_if_needed()
    first = image.get_attribute("src")
    milliseconds = [page.evaluate(_PRESS, [0, key]) for key in ["ArrowLeft"] * 12]
    assert image.get_attribute("src") != first
    image.screenshot(path=SCREENSHOTS / "explorer.png")
    print(f"key to image: {[round(value) for value in milliseconds]} ms")


def test_frame_browser_follows_its_controls(page, lab):
    open_notebook(page, lab, "04_per_class_analysis")
    page.evaluate(_RUN_ALL)
    image = page.locator(".jp-OutputArea-output img.widget-image")
    image.scroll_into_view_if_needed()
    for control, wanted in (
        ("modulation", "QPSK"),
        ("looks for", "snr"),
        ("map by", "integrated gradients"),
    ):
        before = image.get_attribute("src")
        label = page.locator(".widget-label", has_text=control)
        page.locator(".widget-dropdown", has=label).locator("select").select_option(wanted)
        page.wait_for_function(
            "src => document.querySelector('.jp-OutputArea-output img.widget-image').src !== src",
            arg=before,
        )
    page.locator(".jp-OutputArea-output .widget-gridbox").locator("..").screenshot(
        path=SCREENSHOTS / "frame_browser.png"
    )
