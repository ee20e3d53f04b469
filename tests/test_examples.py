"""Every example runs as it stands, from an empty folder, on the sessions of the demo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fxlab import demo

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def demo_sessions(lab):
    demo.prepare(lab)


def test_there_is_a_dozen_and_each_is_short():
    assert len(EXAMPLES) >= 12
    for path in EXAMPLES:
        text = path.read_text(encoding="utf-8")
        assert text.startswith('"""'), path.name
        assert 5 <= len([line for line in text.splitlines() if line.strip()]) <= 25, path.name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(demo_sessions, path, tmp_path):
    answer = subprocess.run(
        [sys.executable, "-W", "error", path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout.strip()
