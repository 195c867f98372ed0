"""RadioML files: checked, read, kept, written; facts of the real one."""
