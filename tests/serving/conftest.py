"""The web app with a model whose pace the test controls."""

import asyncio
import socket
import threading

import pytest

from serving.connections import listen, make_server
from serving.endpoints import make_app
from serving.options import Options
from tests.serving.helpers import FakeModel, visitor


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def server(model):
    """A function that starts the app with options on a free port and returns (client, service)."""
    running = []

    def start(**options):
        options = Options(**options)
        app = make_app(model, options)
        listener = listen("127.0.0.1", 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # so that a slow reader is noticed early
        server = make_server(app, options)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        app.state.service.downloads = app.state.downloads  # at hand for the tests
        client = visitor(1, f"http://127.0.0.1:{listener.getsockname()[1]}")
        running.append((server, thread, client))
        return client, app.state.service

    yield start
    model.go.set()
    for server, thread, client in running:
        client.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
