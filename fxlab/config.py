"""Settings, and where each one came from.

An argument beats an ``FXLAB_*`` variable, which beats ``fxlab.toml`` in the working directory,
which beats the default. `Settings` is frozen: change a setting by making another one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import platformdirs

from fxlab.errors import InvalidInput, InvalidSettings

CONFIG_FILE = "fxlab.toml"
SECRET_NAMES = frozenset({"questdb_password", "questdb_pg_password"})


def _default_home() -> Path:
    home = Path(platformdirs.user_data_dir("fxlab", appauthor=False))
    if not home.is_absolute():  # "~/..." stands for a user without a home folder
        raise InvalidSettings(
            "this user has no home folder; set FXLAB_HOME to the folder in which the embedded "
            "server shall keep its data"
        )
    return home


def _folder(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}; write the whole path") from error


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65_535:
        raise ValueError("a port lies between 1 and 65535")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise ValueError("it must be above zero")
    return number


def parse_bytes(text: str) -> int:
    """Return the bytes of a size with a binary unit or none, such as 512m or 4g.

    Raises
    ------
    ValueError
        If it is no size.
    """
    match = re.fullmatch(r"(\d{1,15})([kmgt]?)", text.strip().lower())
    if match is None:
        raise ValueError("write a number and a unit, such as 512m or 4g")
    return int(match[1]) << 10 * " kmgt".index(match[2] or " ")


def _setting(default: Any, parse: Callable[[str], Any], doc: str) -> Any:  # noqa: ANN401
    metadata = {"parse": parse, "doc": doc}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that can be set, as one frozen value.

    See Also
    --------
    Settings.load : gather the settings from arguments, environment, file and defaults.
    Settings.table : one line for each setting with its source.

    Examples
    --------
    >>> fxlab.Settings.load(questdb_memory="2g").questdb_memory
    '2g'
    """

    home: Path = _setting(
        _default_home, _folder, "where the embedded server keeps its data and passwords"
    )
    questdb_host: str | None = _setting(
        None, str, "a server of your own; unset means the embedded one"
    )
    questdb_http_port: int = _setting(9000, _port, "HTTP: queries, bulk reads and writes")
    questdb_pg_port: int = _setting(8812, _port, "PostgreSQL wire: the catalogue")
    questdb_health_port: int = _setting(9003, _port, "health check of the embedded server")
    questdb_user: str = _setting("fxlab", str, "HTTP user of a server of your own")
    questdb_password: str | None = _setting(None, str, "HTTP password of a server of your own")
    questdb_pg_user: str = _setting("reader", str, "PostgreSQL user of a server of your own")
    questdb_pg_password: str | None = _setting(
        None, str, "PostgreSQL password of a server of your own"
    )
    questdb_version: str = _setting("9.3.4", str, "version of the embedded server")
    questdb_sha256: str | None = _setting(
        None, str, "SHA-256 of the jar, for a version that fxlab does not know"
    )
    questdb_memory: str = _setting(
        "1g", str, "largest heap of the embedded server, as in java -Xmx"
    )
    cache_size: int = _setting(
        4 * 2**30, parse_bytes, "most bytes of sessions copied to this machine, as 4g; 0 for none"
    )
    start_timeout: float = _setting(60.0, _positive, "seconds to wait for the embedded server")
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, **arguments: Any) -> Self:  # noqa: ANN401
        """Gather the settings.

        Parameters
        ----------
        **arguments
            Settings by name; ``None`` means "not given".

        Raises
        ------
        InvalidSettings
            For an unknown name or a value that cannot be parsed, naming where it came from.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        known = {f.name: f for f in _fields(cls)}
        _refuse_unknown(given, known, "argument")
        from_file = _read_config_file()
        _refuse_unknown(from_file, known, CONFIG_FILE)
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for name, spec in known.items():
            variable = f"FXLAB_{name.upper()}"
            for source, found in (
                ("argument", given.get(name)),
                (variable, os.environ.get(variable) or None),
                (CONFIG_FILE, from_file.get(name)),
            ):
                if found is not None:
                    values[name] = _parse(spec, found, source)
                    sources[name] = source
                    break
            else:
                sources[name] = "default"
        return cls(**values, sources=sources)

    @property
    def is_embedded(self) -> bool:
        """Whether fxlab runs the server itself."""
        return self.questdb_host is None

    def is_default(self, name: str) -> bool:
        """Return whether a setting has its default."""
        spec = next(spec for spec in _fields(type(self)) if spec.name == name)
        source = "default" if getattr(self, name) == spec.default else "argument"
        return self.sources.get(name, source) == "default"

    def replace(self, **changes: Any) -> Self:  # noqa: ANN401
        """Return settings with some values changed."""
        sources = {**self.sources, **dict.fromkeys(changes, "argument")}
        return dataclasses.replace(self, **changes, sources=sources)

    def table(self) -> list[tuple[str, str, str, str]]:
        """Return (name, value, source, meaning) of each setting; passwords are masked."""
        return [
            (
                spec.name,
                self._shown(spec.name),
                self.sources.get(spec.name, "default"),
                spec.metadata["doc"],
            )
            for spec in _fields(type(self))
        ]

    def environment(self) -> dict[str, str]:
        """Return the variables that give another process these settings, passwords among them.

        Its working directory may be another, without our ``fxlab.toml``. Ports that are not set are
        left out: set by hand they would be strict.
        """
        values = {
            name: getattr(self, name)
            for name in self.sources
            if not (name.endswith("_port") and self.is_default(name))
        }
        values["home"] = self.home.expanduser().absolute()
        return {
            f"FXLAB_{name.upper()}": str(value)
            for name, value in values.items()
            if value is not None
        }

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        return "********" if name in SECRET_NAMES and value is not None else str(value)

    def __repr__(self) -> str:
        """Show the settings without the secrets."""
        inner = ", ".join(f"{name}={value}" for name, value, _, _ in self.table())
        return f"Settings({inner})"


def path_of(given: str | Path) -> Path:
    """Return a path as a person gives it, "~" being the home.

    Raises
    ------
    InvalidInput
        If nothing can have that name.
    """
    try:
        found = Path(given).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found.stat()
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{str(given)!r:.80} is no path ({why}); give another one") from error
    return found


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Lend a file that takes the place of `path` in the end; after an error that is as it was."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a file in one step: it is whole whenever somebody reads it."""
    with replacing(path, mode) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_private(path: Path, text: str) -> None:
    """Write a file in one step that only its owner can read, and its folder where there is none."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, text, 0o600)


def _fields(cls: type[Settings]) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.name != "sources"]


def _read_config_file() -> dict[str, Any]:
    path = Path(CONFIG_FILE)
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path.resolve()} is not a TOML file: {error}") from error


def _refuse_unknown(given: Mapping[str, object], known: Mapping[str, object], source: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidSettings(
            f"unknown setting {unknown[0]!r} in {source}; the settings are: {', '.join(known)}"
        )


def _parse(spec: dataclasses.Field[Any], value: object, source: str) -> Any:  # noqa: ANN401
    try:
        return spec.metadata["parse"](str(value))
    except ValueError as error:
        raise InvalidSettings(
            f"{source}: {value!r:.100} is not a value for {spec.name} ({spec.metadata['doc']}): "
            f"{error!s:.200}"
        ) from error
