"""Files in the layout of RadioML 2018.01A: checked, read, kept, written; facts of the real one."""
