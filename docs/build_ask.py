"""Build docs/site/ask.html, the page that asks the shipped model in the browser.

    python docs/build_ask.py [FOLDER]        (`make docs` runs it; needs Node and npm)

    page/src, onnxruntime-web  --esbuild-->  docs/site/ask.mjs    library for Node, code of the page
    the model, its devices     ----------->  docs/site/ask.json   what ask.mjs opens
    both in page/ask.html      ----------->  docs/site/ask.html   one file, also from a disk

npm installs what page/package-lock.json says, once. Nothing of it is committed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from coordinator.report.ask_candidates import Json  # noqa: E402
from coordinator.report.ask_model import (  # noqa: E402
    contract_facts,
    language_facts,
    model_facts,
)
from coordinator.report.ask_page import packed  # noqa: E402
from gemmcast import models  # noqa: E402

PAGE: Final = ROOT / "page"
SITE: Final = ROOT / "docs" / "site"
"""The folder, if none is named."""
INSTALLED: Final = PAGE / "node_modules" / ".installed"
"""Holds the hash of the lock file that was installed."""
RUNTIME: Final = "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"
BUNDLE: Final = PAGE / "build" / "ask.mjs"
ESBUILD: Final = (
    "node",
    "node_modules/esbuild/bin/esbuild",
    "src/ask.mjs",
    "--bundle",
    "--minify",
    "--format=esm",
    "--charset=utf8",
    "--loader:.gz=base64",
    # what ONNX Runtime Web loads in Node only
    "--external:module",
    "--external:node:*",
    "--external:worker_threads",
    "--log-level=error",
    f"--outfile={BUNDLE}",
)
VERSION_DIGITS: Final = 12
"""Of the model's SHA-256, as `Predictor.version` has them."""


def main(folder: Path) -> None:
    """Install, bundle, and write the three files of the site."""
    install()
    bundle()
    facts = all_facts()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(BUNDLE, folder / "ask.mjs")
    (folder / "ask.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    page = folder / "ask.html"
    page.write_text(filled(BUNDLE.read_text(encoding="utf-8"), facts), encoding="utf-8")
    print(f"page: {page}, {page.stat().st_size / 1e6:.1f} MB")


def install() -> None:
    """`npm ci`, unless node_modules is that of the lock file."""
    wanted = hashlib.sha256((PAGE / "package-lock.json").read_bytes()).hexdigest()
    if INSTALLED.is_file() and INSTALLED.read_text() == wanted:
        return
    _run("npm", "ci", "--silent")
    INSTALLED.write_text(wanted)


def bundle() -> None:
    """Code and WebAssembly in one module; an unchanged WebAssembly is packed once."""
    BUNDLE.parent.mkdir(exist_ok=True)
    runtime = PAGE / RUNTIME
    runtime_gz = BUNDLE.parent / "runtime.wasm.gz"
    if not runtime_gz.is_file() or runtime_gz.stat().st_mtime < runtime.stat().st_mtime:
        runtime_gz.write_bytes(gzip.compress(runtime.read_bytes(), mtime=0))
    _run(*ESBUILD)


def all_facts() -> Json:
    """What ask.mjs opens: the contract, the shipped model, the language models."""
    card = models.card()
    configs = json.loads((PAGE / "language_models.json").read_text())
    return {
        "contract": contract_facts(),
        "language_models": language_facts(configs),
        "model": model_facts(models.path().read_bytes(), card, card.sha256[:VERSION_DIGITS]),
    }


def filled(code: str, facts: Json) -> str:
    """The page's template with its style, facts, model and code."""
    page = (PAGE / "ask.html").read_text(encoding="utf-8")
    shared = {name: value for name, value in facts.items() if name != "model"}
    parts = {
        "STYLE": (PAGE / "ask.css").read_text(encoding="utf-8"),
        "FACTS": packed(shared),
        "MODEL": packed(facts["model"]),
        "CODE": code,
    }
    for name, part in parts.items():
        page = page.replace(f"<!--{name}-->", part, 1)
    return page


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        sys.exit(f"error: {command[0]} is not on the PATH: install Node.js 20 or newer with npm")
    done = subprocess.run(command, cwd=PAGE, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        sys.exit(f"error: `{' '.join(command[:2])}` failed: {lines[0]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE)
