"""A study on its way to another process: what it needs, without what cannot travel.

A frame travels as it is. A session does not: the other process opens its own connection, so ticks
go straight from the database to where they are replayed. Passwords travel only through a pipe to a
child of this process; a worker elsewhere has to know its own.
"""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass

from fxlab.backtester.frame_source import FrameSource
from fxlab.backtester.ticks import TickSource
from fxlab.config import Settings
from fxlab.errors import QuestDBUnavailable
from fxlab.questdb import server
from fxlab.questdb.client import QuestDB
from fxlab.questdb.endpoint import Endpoint
from fxlab.sessions import Session
from fxlab.sweeper.held import Held
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study, Terms


@dataclass(frozen=True)
class SessionAddress:
    """Where a session is: the server, and the session's id."""

    session_id: str
    endpoint: Endpoint
    complete: bool = True
    """Whether the passwords are in the endpoint; else the reader has to know them."""

    def opened(self) -> Session:
        """Return the session, read over a connection of this process."""
        from fxlab import catalogue

        db = QuestDB(self.endpoint if self.complete else self._own_login())
        return Session.from_row(db, catalogue.find(db, self.session_id))

    def _own_login(self) -> Endpoint:
        own, there = server.endpoint(Settings.load()), self.endpoint
        if (own.host, own.http_port) != (there.host, there.http_port):
            raise QuestDBUnavailable(
                f"session {self.session_id} is on {there.host}:{there.http_port}, and the settings "
                f"of this worker lead to {own.host}:{own.http_port}; set FXLAB_QUESTDB_HOST and "
                "FXLAB_QUESTDB_HTTP_PORT where the workers are started"
            )
        return own


@dataclass(frozen=True)
class Parcel:
    """A study, ready to be pickled."""

    source: FrameSource | SessionAddress
    terms: Terms
    example: Point

    @classmethod
    def of(cls, study: Study, *, passwords: bool) -> Parcel | None:
        """Return the study's parcel; None if its source cannot travel."""
        source = study.source.source if isinstance(study.source, Held) else study.source
        packed = _packed(source, passwords=passwords)
        if packed is None:
            return None
        return cls(packed, study.terms, study.example)

    def opened(self) -> Study:
        """Return the study, in another process."""
        source = self.source
        found: TickSource = source.opened() if isinstance(source, SessionAddress) else source
        return Study(found, self.terms, self.example)


def _packed(source: object, *, passwords: bool) -> FrameSource | SessionAddress | None:
    if isinstance(source, FrameSource):
        return source
    if not isinstance(source, Session):
        return None
    endpoint = source._db.endpoint  # noqa: SLF001 - a session has no other way to say where it is
    if not passwords:
        endpoint = dataclasses.replace(endpoint, password=None, pg_password=None)
    return SessionAddress(source.id, endpoint, complete=passwords)


def pickled(parcel: Parcel) -> bytes | None:
    """Return a parcel as bytes; None if something in it cannot leave this process.

    A function typed in a notebook travels by value, others by the name of their module.
    """
    import cloudpickle

    try:
        found: bytes = cloudpickle.dumps(parcel)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return found


def load(found: bytes) -> Parcel:
    """Return the parcel of these bytes; they come from our own process or from its cluster."""
    parcel: Parcel = pickle.loads(found)  # noqa: S301 - never from a file or a stranger
    return parcel
