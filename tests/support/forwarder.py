"""A network between fxlab and its server that can lose answers, stall, and come back."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading


class Forwarder:
    """Forwards TCP connections to a port on this machine.

    Parameters
    ----------
    target
        The port behind it.
    lost_answers
        So many answers are read from the server and not passed on; the connection is cut instead.
    stalled
        Take connections and bytes, and never answer.
    port
        Where it listens; 0 picks a free port.
    """

    def __init__(self, target: int, *, lost_answers: int = 0, stalled: bool = False, port: int = 0):
        self.target = target
        self.lost_answers = lost_answers
        self.stalled = stalled
        self.stopping = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.settimeout(0.05)
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        self.listener.close()

    def _accept(self):
        while not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self.listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self.threads.append(thread)
                thread.start()

    def _serve(self, client):
        with (
            client,
            socket.create_connection(("127.0.0.1", self.target)) as server,
            selectors.DefaultSelector() as ready,
        ):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while not self.stopping.is_set():
                for key, _ in ready.select(0.05):
                    source, sink = key.fileobj, key.data
                    if not self._pass_on(source, sink, from_server=source is server):
                        return

    def _pass_on(self, source, sink, *, from_server):
        try:
            data = source.recv(65_536)
        except OSError:
            return False
        if not data or (from_server and self.lost_answers > 0):
            self.lost_answers -= from_server and bool(data)
            return False
        if not self.stalled:
            sink.sendall(data)
        return True
