"""Controls for JupyterLab."""
