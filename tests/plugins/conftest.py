"""A Python with the hook and one without it, whatever is installed where the tests run."""

import compileall
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = ("st_reasoning_mteb.pth", "_st_reasoning_mteb.py")


class Stock:
    """A Python that finds this project beside all installed packages."""

    def __init__(self, python: Path) -> None:
        self.python = python

    def start(self, *arguments, cwd, **environment):
        """Start Python offline in ``cwd``; no variable of ours is inherited."""
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("ST_REASONING", "PYTHON"))}
        return subprocess.Popen(
            [self.python, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
            env={**variables, "HF_HUB_OFFLINE": "1", "COLUMNS": "200",
                 "ST_REASONING_EMBEDDINGS": str(cwd / "embeddings"), **environment},
        )  # fmt: skip

    def __call__(self, *arguments, cwd, code=0, **environment):
        """Run Python to its end, expect an exit code, and return standard output and standard error."""
        process = self.start(*arguments, cwd=cwd, **environment)
        out, err = process.communicate(timeout=600)
        assert process.returncode == code, err
        return out, err

    def mteb(self, *arguments, cwd, **environment):
        """Run mteb's command line to its end."""
        return self("-m", "mteb", *arguments, cwd=cwd, **environment)


def python(folder: Path, *, hook: bool) -> Stock:
    """Make a virtual environment that sees what is installed here and this project, as an installation would."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    # Path lines only: the .pth files of the environment around, which may hold the hook, are not read again.
    # All that this Python looks at, which may be layers: an environment over another one.
    outer = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "a_outer.pth").write_text("\n".join([str(ROOT), *outer]) + "\n")
    for name in HOOK if hook else ():
        (packages / name).write_bytes((ROOT / "plugins" / name).read_bytes())
    compileall.compile_dir(packages, quiet=1)  # as pip does
    return Stock(folder / "bin" / "python")


@pytest.fixture(scope="session")
def hooked(tmp_path_factory):
    """What `pip install st-reasoning` leaves."""
    return python(tmp_path_factory.mktemp("hooked"), hook=True)


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """The same without the hook."""
    return python(tmp_path_factory.mktemp("plain"), hook=False)
