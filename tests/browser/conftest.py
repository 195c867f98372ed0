"""JupyterLab on this machine's own interface, and Chromium looking at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import papermill
import pytest
import yaml
from jupyter_api import ask

from amc_utils.runtime.paths import REPOSITORY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Nothing on the page but the notebook, and all of it.
_SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}
_QUIET = ("--no-first-run", "--disable-background-networking", "--disable-component-update")
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-sync", *_QUIET)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """The notebooks at smoke size in a folder of their own, with a copy of the results."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(REPOSITORY / "results", root / "results")
    for path in sorted((REPOSITORY / "notebooks").glob("0[1-3]*.ipynb")):
        profile = REPOSITORY / "profiles" / "smoke" / f"{path.stem}.yaml"
        _prepare(path, root, yaml.safe_load(profile.read_text(encoding="utf8")))
    for path in sorted((REPOSITORY / "notebooks").glob("0[4-9]*.ipynb")):
        _prepare(path, root, {})
    return root


def _prepare(path: Path, root: Path, parameters: dict) -> None:
    values = parameters | {"output_root": str(root)}
    papermill.execute_notebook(path, root / path.name, values, prepare_only=True)


@pytest.fixture(scope="session")
def lab(workspace):
    """Address of a JupyterLab whose folders are all its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = workspace / ".jupyter"
    folders = {"CONFIG_DIR": "config", "RUNTIME_DIR": "run", "DATA_DIR": "data"}
    environment = os.environ | {f"JUPYTER_{name}": str(home / part) for name, part in folders.items()}
    settings = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment |= {name: str(home / part) for name, part in settings.items()}
    for name, content in _SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(content)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", "--allow-root"]
    command += ["--LabApp.news_url=", "--LabApp.extension_manager=readonly"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={workspace}"]
    # Requests of the tests carry no cookie.
    command += ["--ServerApp.disable_check_xsrf=True"]
    with (workspace / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, server, workspace / "lab.log")
            yield address
            left = ask(address, "kernels")
            assert not left, f"kernels that outlive their notebooks: {left}"
        finally:
            server.terminate()
            server.wait(30)


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(120):
        try:
            with urllib.request.urlopen(f"{address}/api", timeout=5):
                return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer:\n{log.read_text()}")


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; Debian's package is called chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield chromium
        chromium.close()
