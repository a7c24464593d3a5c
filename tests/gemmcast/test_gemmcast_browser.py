"""The example in JavaScript as a page runs it: without Node's `process` and modules.

Node plays the browser; a fake of ONNX Runtime Web takes the query and answers. (With the
package and Chromium it was tried by hand.)
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed.mjs"
BROWSER = """
import { readFile } from "node:fs/promises"
globalThis.fetch = async (url) => {
  try { return new Response(await readFile(new URL(url))) } catch (error) {
    return new Response("", { status: 404, statusText: "Not Found" })
  }
}
delete globalThis.process
await import(new URL("embed.mjs?model=model.onnx&about=about.json", import.meta.url))
"""
ONNX_RUNTIME = """
export class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }) } }
export const InferenceSession = {
  create: async (bytes) => ({
    run: async ({ question }, names) => {
      console.log(JSON.stringify([Array.from(bytes), question.dims]))
      const column = [1, 2, 3, 4], pair = [1, 0, 2, 0, 3, 0, 4, 0]
      const answers = { runtime_us: column, tflops: column, low: pair, high: pair }
      answers.extrapolating = [0, 0, 0, 1]
      return Object.fromEntries(names.map((name) => [name, { data: answers[name] }]))
    },
  }),
}
"""
DEVICE = {
    "compute_units": 132,
    "peak_tflops": {"fp32": 51.2},
    "dram_gbps": 2987.6,
    "l2_bytes": 50 << 20,
    "clock_max_mhz": None,
    "empty_kernel_us": 1.1,
    "power_limit_w": None,
    "idle_power_w": None,
    "l2_gbps": None,
}
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder as a web server would show it."""
    package = tmp_path / "node_modules" / "onnxruntime-web"
    package.mkdir(parents=True)
    described = {"name": "onnxruntime-web", "type": "module", "exports": "./index.mjs"}
    (package / "package.json").write_text(json.dumps(described))
    (package / "index.mjs").write_text(ONNX_RUNTIME)
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "browser.mjs").write_text(BROWSER)
    (tmp_path / "model.onnx").write_bytes(b"\x07\x08")
    about = {"contract": "4", "outputs": ["runtime_us", "tflops"], "devices": [DEVICE]}
    (tmp_path / "about.json").write_text(json.dumps(about))
    return tmp_path


def _run(page: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", "browser.mjs"], cwd=page, capture_output=True, text=True, check=False
    )


def test_it_fetches_its_files_and_answers(page: Path) -> None:
    done = _run(page)
    assert done.returncode == 0, done.stderr
    seen, *lines = done.stdout.splitlines()
    assert json.loads(seen) == [[7, 8], [4, 34]]
    assert len(lines) == 4
    assert "1.0 us (1.0 to 1.0), 1.00 TFLOP/s" in lines[0]
    assert lines[3].endswith(", outside the training range")


def test_a_missing_file_is_named(page: Path) -> None:
    (page / "model.onnx").unlink()
    assert "model.onnx: 404 Not Found" in _run(page).stderr


def test_nothing_of_node_is_imported_before_it_is_known_to_be_node() -> None:
    assert not re.search(r'^import .*"node:', EXAMPLE.read_text(), re.MULTILINE)
