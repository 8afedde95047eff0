"""A hub on this machine: the part of the API of huggingface.co that huggingface_hub uses for models."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


@dataclass
class Repository:
    """A repository: its commits (files by name), and the commit of each branch."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str | None] = field(default_factory=lambda: {"main": None})
    private: bool = False
    refusal: tuple[int, str] | None = None  # status and error code of its files, such as (403, "GatedRepo")

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Make ``files`` the content of a branch; returns the commit."""
        content = b"".join(name.encode() + data for name, data in sorted(files.items()))
        sha = hashlib.sha1(content + bytes([len(self.commits)])).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        """Commit of a branch, or the commit itself."""
        return revision if revision in self.commits else self.branches.get(revision)


class FakeHub:
    """Repositories, and what was requested of them.

    Attributes:
        downloads: Names of the files that were downloaded.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # large files that were uploaded
        self.downloads: list[str] = []
        self.address = ""

    def add_folder(self, name: str, folder: Path, branch: str = "main") -> Repository:
        """Make the files of a folder the content of a repository."""
        repository = self.repositories.setdefault(name, Repository())
        files = [path for path in folder.rglob("*") if path.is_file()]
        repository.commit(branch, {str(path.relative_to(folder)): path.read_bytes() for path in files})
        return repository


class Handler(BaseHTTPRequestHandler):
    """Answers requests; ``hub`` is set by ``running``."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def answer(self, content: object = b"", status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer({"error": code}, status, X_Error_Code=code)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def do_GET(self) -> None:
        match self.parts():
            case ["api", "models", user, name, *rest]:
                action, revision = (rest + ["revision", "main"])[:2] if rest else ("revision", "main")
            case [user, name, "resolve", revision, *path]:
                action = "/".join(path)
            case _:
                return self.refuse(404, "RepoNotFound")
        repository = self.hub.repositories.get(f"{user}/{name}")
        if repository is None or (repository.private and "Authorization" not in self.headers):
            return self.refuse(401 if repository else 404, "RepoNotFound")
        sha = repository.find(revision)
        if sha is None and revision != "main":
            return self.refuse(404, "RevisionNotFound")
        files = repository.commits.get(sha or "", {})
        if action == "revision":
            siblings = [{"rfilename": path} for path in files]
            return self.answer({"id": f"{user}/{name}", "sha": sha, "siblings": siblings, "tags": [], "private": False})
        if repository.refusal:
            return self.refuse(*repository.refusal)
        if action == "tree":
            entries = [("file", path, len(data), hashlib.sha1(data).hexdigest()) for path, data in files.items()]
            return self.answer([dict(zip(("type", "path", "size", "oid"), entry, strict=True)) for entry in entries])
        if action not in files:
            return self.refuse(404, "EntryNotFound")
        if self.command == "GET":
            self.hub.downloads.append(action)
        etag = hashlib.sha1(files[action]).hexdigest()
        return self.answer(files[action], ETag=f'"{etag}"', X_Repo_Commit=str(sha))

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.hub.objects[self.parts()[-1]] = self.body()
        self.answer()

    def do_POST(self) -> None:
        body, repositories = self.body(), self.hub.repositories
        match self.parts():
            case ["api", "repos", "create"]:
                wanted = json.loads(body)
                name = f"{wanted['organization']}/{wanted['name']}"
                if name in repositories:
                    return self.answer({"error": "exists", "url": f"{self.hub.address}/{name}"}, 409)
                repositories[name] = Repository(private=wanted.get("visibility") == "private" or wanted.get("private"))
                repositories[name].commit("main", {".gitattributes": b""})
                return self.answer({"url": f"{self.hub.address}/{name}"})
            case ["api", "models", user, name, "branch", branch]:
                branches = repositories[f"{user}/{name}"].branches
                if branch in branches:
                    return self.answer({"error": "exists"}, 409)
                branches[branch] = branches["main"]
                return self.answer({})
            case ["api", "validate-yaml"]:
                return self.answer({"warnings": [], "errors": []})
            case ["api", "models", user, name, "preupload", _]:
                if refusal := repositories[f"{user}/{name}"].refusal:
                    return self.refuse(*refusal)
                modes = {True: "lfs", False: "regular"}
                return self.answer({"files": [
                    {"path": file["path"], "uploadMode": modes[file["path"].endswith(".safetensors")],
                     "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]})  # fmt: skip
            case [_, _, "info", "lfs", "objects", "batch"]:
                return self.answer({"transfer": "basic", "objects": [
                    wanted | {"actions": {"upload": {"href": f"{self.hub.address}/lfs/{wanted['oid']}"}}}
                    for wanted in json.loads(body)["objects"]
                ]})  # fmt: skip
            case ["api", "models", user, name, "commit", branch]:
                return self.commit(f"{user}/{name}", branch, [json.loads(line) for line in body.splitlines()])
        return self.refuse(404, "EntryNotFound")

    def commit(self, name: str, branch: str, changes: list[dict]) -> None:
        repository = self.hub.repositories[name]
        files = dict(repository.commits[repository.branches[branch]])
        for change in changes:
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif change["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(branch, files)
        self.answer({"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha})


@contextmanager
def running() -> Iterator[FakeHub]:
    """Run a hub on a free port."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use(hub_address: str, cache: Path, patch: pytest.MonkeyPatch, offline: bool = False) -> None:
    """Make huggingface_hub in this process use a hub and a cache, as HF_ENDPOINT and HF_HUB_CACHE do at its import."""
    patch.setattr(constants, "ENDPOINT", hub_address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub_address + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", offline)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    patch.delenv("HF_TOKEN", raising=False)
