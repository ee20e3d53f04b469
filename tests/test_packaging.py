"""The ways to install fxlab agree with each other, and nothing private is committed."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"python-xxhash": "xxhash"}


def split(requirement: str) -> tuple[str, str]:
    """Return name and bounds of ``name>=1,<2``."""
    name, bounds = re.fullmatch(r"([A-Za-z0-9_-]+)(.*)", requirement.strip()).groups()
    return CONDA_NAMES.get(name, name), bounds.strip()


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_conda_environment_equals_pyproject():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    plain = [entry for entry in entries if isinstance(entry, str)]
    by_pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    found = dict(split(entry) for entry in plain + by_pip if not entry.startswith("-e"))
    assert found.pop("pip") == ""
    assert found.pop("python") == PROJECT["requires-python"]
    assert found == dict(split(entry) for entry in PROJECT["dependencies"])
    assert "-e ." in by_pip


@pytest.mark.parametrize("kind", ["runtime", "dev"])
def test_locks_pin_every_requirement_with_hashes_and_name_no_address(kind):
    text = (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    pinned = {re.match(r"[A-Za-z0-9_.-]+", entry)[0].lower() for entry in entries}
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)
    wanted = PROJECT["dependencies"] + ["hatchling", "editables"]
    wanted += PROJECT["optional-dependencies"]["dev"] if kind == "dev" else []
    assert {split(entry)[0].lower() for entry in wanted} <= pinned


@pytest.mark.parametrize("extra", ["ccxt", "cluster", "optuna"])
def test_what_an_extra_brings_is_tested_and_offered_to_conda_users(extra):
    extras = PROJECT["optional-dependencies"]
    if extra == "ccxt":  # alone in its lock: its exact pins contradict the others
        lock = (ROOT / "requirements" / "ccxt.txt").read_text(encoding="utf-8")
        assert re.match(r"ccxt==4\.5\.", lock)
        assert "--hash=sha256:" in lock
        assert "://" not in lock
    else:
        assert set(extras[extra]) <= set(extras["dev"])
    assert extra in (ROOT / "environment.yml").read_text(encoding="utf-8")


def test_a_wheel_holds_templates_and_types():
    found = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    templates = [path for path in (ROOT / "fxlab" / "templates").iterdir() if path.is_file()]
    assert len(templates) > 5
    for path in [*templates, ROOT / "fxlab" / "py.typed"]:
        assert str(path.relative_to(ROOT)) in found


def test_version_changelog_and_license_agree():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {PROJECT['version']}" in changelog
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_every_setting_and_command_is_in_the_readme():
    from fxlab.config import Settings

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, *_ in Settings.load().table():
        variable = f"FXLAB_{name.upper()}"
        ending = "_" + name.upper().split("_", 1)[-1]
        assert variable in readme or f"`{ending}`" in readme, name
    for command in (
        "up",
        "down",
        "status",
        "doctor",
        "settings",
        "import",
        "sessions",
        "strategies",
        "backtest",
        "demo",
        "lab",
        "runs",
        "reproduce",
    ):
        assert re.search(rf"fxlab [^`]*\b{command}\b", readme), command


def test_architecture_speaks_of_every_dependency():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for entry in PROJECT["dependencies"]:
        assert split(entry)[0] in page, entry


def test_no_machine_path_secret_or_registry_is_committed():
    machine_path = re.compile(r"(^|[^A-Za-z0-9_.])[/](work|farm|root)/")
    secret = re.compile(r"(?i)(api[_-]?key|secret|token)\s*[:=]\s*['\"][A-Za-z0-9/+]{16,}")
    for path in committed():
        assert path.name != ".env"
        assert path.stat().st_size < 1_000_000, path
        if path.suffix in {".png", ".parquet"}:
            continue
        text = path.read_text(encoding="utf-8")
        assert not machine_path.search(text), path
        assert not secret.search(text), path


def test_committed_notebooks_are_valid_json():
    for path in committed():
        if path.suffix == ".ipynb":
            assert json.loads(path.read_text(encoding="utf-8"))["nbformat"] == 4


def test_the_long_form_of_each_test_is_run():
    script = (ROOT / "scripts" / "faults").read_text(encoding="utf-8")
    asking = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r'environ\.get\("FXLAB_FAULTS"', path.read_text(encoding="utf-8"))
    ]
    assert "tests/collect/test_importer.py" in asking
    named = re.findall(r"\btests/[\w/.]+", script)
    assert [path for path in asking if not any(path.startswith(each) for each in named)] == []
