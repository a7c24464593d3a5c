r"""Directories whose names a library would read differently.

Delta Lake decodes a `%` in a path twice, takes `\` for `/` and refuses control characters, however
they are encoded; SQLAlchemy decodes `%` and splits at `?`. So `feature%2Fx` would be `feature/x`,
another workspace. Such a directory is opened through a symbolic link with a plain name, in a folder
that is removed with this process. Every other name is used as it is. Knows neither library.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Final

from gemmcast.errors import InputError

DECODED: Final = "%?\\"
"""Characters that some library decodes or takes for another; so are control characters."""


def is_plain(path: Path) -> bool:
    """Whether every library reads this name as it is."""
    text = str(path)
    return text.isprintable() and not any(character in text for character in DECODED)


def resolved(path: Path | str, field: str) -> Path:
    """The absolute path, checked before anything is written.

    Args:
        field: what the user calls it; for messages.

    Raises:
        InputError: no library could open it.
    """
    text = str(path)
    try:
        text.encode()
        return Path(path).resolve()
    except UnicodeEncodeError:
        rule = "its name is not UTF-8"
    except (ValueError, OSError, RuntimeError) as error:
        rule = f"is no path ({error})"
    raise InputError(field, text, rule, "name another directory")


def link_to(path: Path, name: str) -> Path:
    """A link to a directory, with a path that every library reads as it is.

    Args:
        name: of the link.

    Raises:
        InputError: the directory for temporary files has no such path.
    """
    folder = Path(tempfile.mkdtemp(prefix="gemmcast-path-"))
    # Removes the link, never what it points at.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if not is_plain(folder):
        way_out = "set TMPDIR to a directory with a plain name"
        raise InputError("TMPDIR", str(folder.parent), f"contains one of {DECODED}", way_out)
    link = folder / name
    link.symlink_to(path, target_is_directory=True)
    return link
