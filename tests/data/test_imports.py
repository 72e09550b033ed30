"""What a user's file depends on, found by reading it."""

from __future__ import annotations

from pathlib import Path

from edgeprivacy.data.imports import imported_files


def test_imports_are_followed_and_installed_packages_are_not(tmp_path: Path) -> None:
    files = {
        "net.py": "import numpy, blocks.dense\nfrom blocks import conv\ndef make():\n    import late\n",
        "late.py": "import net\n",
        "unused.py": "",
        "blocks/__init__.py": "from .base import Base\n",
        "blocks/base.py": "from ..outside import x\n",
        "blocks/dense.py": "",
        "blocks/conv.py": "this is no Python",
        "blocks/unused.py": "",
        "outside.py": "x = 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = imported_files(tmp_path / "net.py", [tmp_path])
    names = {path.relative_to(tmp_path.resolve()).as_posix() for path in found}
    assert names == set(files) - {"unused.py", "blocks/unused.py"}


def test_a_missing_file_imports_nothing(tmp_path: Path) -> None:
    assert imported_files(tmp_path / "none.py", [tmp_path]) == [(tmp_path / "none.py").resolve()]
