"""Where things live, the repository and a run's workspace, and how they are written: whole, in turn."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

ABOVE_PACKAGE = Path(__file__).resolve().parents[2]
IN_REPOSITORY = (ABOVE_PACKAGE / "claims.yaml").is_file()
# Of a package that was installed by itself, the current folder takes the repository's place.
REPOSITORY = ABOVE_PACKAGE if IN_REPOSITORY else Path.cwd()
# Folder of runs that stand alone; as those beside it in results/ no name for a study.
SINGLE = "main"
_RESERVED = (SINGLE, "radioml_2018_facts")
# Of runs and studies; nothing that leads out of their folder or hides in it.
NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9._-]*"


@dataclass(frozen=True)
class Workspace:
    """Folder that receives what a notebook writes, with the repository's own layout.

    Attributes:
        root: the folder; results/, figures/, outputs/ and RUNLOG.md lie inside it.
        study: name of the study whose runs are meant; empty for runs that stand alone.
    """

    root: Path
    study: str = ""

    @classmethod
    def at(cls, output_root: str, study: str = "") -> Workspace:
        """Workspace at `output_root` (relative to the working directory); empty: the repository.

        Raises:
            ValueError: no name for a study.
        """
        if study and (study in _RESERVED or not re.fullmatch(NAME_PATTERN, study)):
            raise ValueError(
                f"a study must have a name of letters, digits, points, hyphens and underscores, other "
                f"than {', '.join(_RESERVED)}; got {study!r}"
            )
        return cls(Path(output_root).resolve() if output_root else REPOSITORY, study)

    @property
    def results(self) -> Path:
        """Folder of all results that are kept, a folder a study, and of single runs, main/."""
        return self.root / "results"

    @property
    def kept(self) -> Path:
        """Folder in results/ of the study, or of runs that stand alone."""
        return self.results / (self.study or SINGLE)

    @property
    def runs(self) -> Path:
        """Folder of the folders of new runs."""
        return self.outputs / "runs" / (self.study or SINGLE)

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.root / "figures"

    @property
    def outputs(self) -> Path:
        """Folder of what can be made again: executed notebooks, checkpoints."""
        return self.root / "outputs"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoint folders, one a run."""
        return self.outputs / "checkpoints" / self.study

    def model(self, run: str) -> Path:
        """Exported network of a run: in the package if it comes with it, else in outputs/models/."""
        shipped = self.root / "amc_utils" / "inference" / "shipped" / run
        own = self.outputs / "models" / run
        return (shipped if shipped.is_dir() else own) / "model.safetensors"

    @property
    def runlog(self) -> Path:
        """The lab diary."""
        return self.root / "RUNLOG.md"


def repository_file(name: str) -> Path:
    """Path of a file or folder that the repository has and the package alone does not.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = REPOSITORY / name
    if not path.exists():
        raise FileNotFoundError(
            f"{name} not found in {REPOSITORY}; a clone of the repository has it, run the command there"
        )
    return path


def cache_folder() -> Path:
    """Where frames and audits of files are kept: outputs/cache/, or what AMC_CACHE names."""
    named = os.environ.get("AMC_CACHE")
    # In a folder of our own, since all that lies there may be removed.
    return Path(named) / "amc_utils" if named else REPOSITORY / "outputs" / "cache"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Temporary path that becomes `path` when the block succeeds and vanishes when it fails.

    A reader therefore never sees a half-written file, whatever interrupts the writer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # Content before name, also on a machine that loses power in between.
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        # mkstemp makes private files; a result is as readable as the user's umask allows.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def one_at_a_time(lock_file: Path, work: str) -> Iterator[None]:
    """Hold a lock while the block runs; says for what it waits where another process holds it.

    Args:
        lock_file: which work it is; its folder is made.
        work: what the other process is doing.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process, which is {work}", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
