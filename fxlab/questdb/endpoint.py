"""Where a server answers and who logs in: all that a client needs, and nothing of how it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from fxlab.errors import QuestDBUnavailable


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """Address and logins of one QuestDB server.

    HTTP has one login with full rights; `pg_user` of the embedded server can only read. A password
    of None means that the server asks for none. `embedded` is fxlab's own.
    """

    host: str
    http_port: int
    pg_port: int
    user: str
    password: str | None
    pg_user: str
    pg_password: str | None
    embedded: bool = field(default=True, compare=False)

    @property
    def http_url(self) -> str:
        """Return the base address for HTTP, without the login and without a slash at its end."""
        return f"http://{self._host_in_url}:{self.http_port}"

    @property
    def http_auth(self) -> tuple[str, str] | None:
        """Return user and password for HTTP, or None where the server asks for none."""
        return None if self.password is None else (self.user, self.password)

    @property
    def pg_url(self) -> str:
        """Return the PostgreSQL address with the login in it: a secret, never to be printed."""
        secret = "" if self.pg_password is None else f":{quote(self.pg_password, safe='')}"
        login = f"{quote(self.pg_user, safe='')}{secret}"
        return f"postgresql://{login}@{self._host_in_url}:{self.pg_port}/qdb"

    @property
    def login_advice(self) -> str:
        """Return the sentence for a server that refuses the login over HTTP."""
        return (
            f"QuestDB at {self.host}:{self.http_port} refuses the user {self.user!r} or its "
            "password; check questdb_user and questdb_password (FXLAB_QUESTDB_USER, "
            "FXLAB_QUESTDB_PASSWORD)"
        )

    def unavailable(self, reason: str, port: int | None = None) -> QuestDBUnavailable:
        """Return the error for a server that does not answer, with what its owner can do."""
        if self.embedded:
            return QuestDBUnavailable.at(self.host, port or self.http_port, reason)
        return QuestDBUnavailable(
            f"QuestDB is required but could not be reached at {self.host}:{port or self.http_port} "
            f"({reason}); start that server, or unset FXLAB_QUESTDB_HOST to use fxlab's own"
        )

    @property
    def _host_in_url(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __repr__(self) -> str:
        return (
            f"Endpoint({self.user}:{_masked(self.password)}@{self.host}:{self.http_port}, "
            f"{self.pg_user}:{_masked(self.pg_password)}@{self.host}:{self.pg_port})"
        )


def _masked(password: str | None) -> str:
    return "no password" if password is None else "********"
