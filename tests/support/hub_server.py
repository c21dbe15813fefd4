"""A Hugging Face Hub of a few files, on this machine, that fails on demand."""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "1234567890" * 4
REVISIONS = ("main", "v1.0", COMMIT)


class HubServer(ThreadingHTTPServer):
    """The server; until `start`, its port refuses connections.

    Attributes:
        repos: Folder of each repository: of `owner/model` or `datasets/owner/name`.
        denied: Status and error code of repositories that are not for everyone.
        private: Repositories that were created as private ones.
        proposed: Files of pull requests, by repository.
        fault: What happens to requests: an HTTP status, `drop`, `hang`, or `cut` (files end early).
        faulty: Part of the paths to which it happens.
        after: How many of these requests go well before.
        times: How many then fail.
        asked: Method and path of all requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.server_bind()
        self.repos: dict[str, Path] = {}
        self.denied: dict[str, tuple[int, str]] = {}
        self.private: set[str] = set()
        self.proposed: dict[str, dict[str, bytes]] = {}
        self.heal()

    def start(self) -> None:
        """Answer from now on, until the end of the process."""
        self.server_activate()
        Thread(target=self.serve_forever, daemon=True).start()

    def heal(self) -> None:
        """Answer everything."""
        self.fault: int | str | None = None
        self.faulty, self.after, self.times = "", 0, math.inf
        self.asked: list[str] = []

    def fails(self, path: str) -> bool:
        """Whether the fault concerns this request."""
        if self.fault is None or self.faulty not in path:
            return False
        self.after -= 1
        return -self.times <= self.after < 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        self.cut = False
        if self.server.fails(path):
            self._fail()
        if not self.close_connection:
            self._route(path.strip("/"))

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _fail(self) -> None:
        fault = self.server.fault
        if fault == "cut":
            self.cut = True
            return
        if fault == "hang":
            time.sleep(30)
        elif isinstance(fault, int):
            self._answer(fault, {"error": "out of order"})
        self.close_connection = True

    def _route(self, path: str) -> None:
        if path == "api/repos/create":
            self._create(json.loads(self.body))
            return
        if path == "api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
            return
        api = path.startswith("api/")
        path = path.removeprefix("api/").removeprefix("models/")
        known = [name for name in self.server.repos if path == name or path.startswith(f"{name}/")]
        if not known:
            self._refuse(401, "RepoNotFound")
            return
        rest = path.removeprefix(known[0]).strip("/").split("/")
        revision = rest[1] if len(rest) > 1 else "main"
        if known[0] in self.server.denied and not (api and rest[0] in ("", "revision")):
            self._refuse(*self.server.denied[known[0]])
        elif revision not in REVISIONS:
            self._refuse(404, "RevisionNotFound")
        elif api and rest[0] == "preupload":
            files = [{"path": file["path"]} for file in json.loads(self.body)["files"]]
            how = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer(200, {"files": [file | how for file in files]})
        elif api and rest[0] == "commit":
            self._commit(known[0])
        elif api:
            self._describe(self.server.repos[known[0]], known[0], rest)
        else:
            self._send_file(self.server.repos[known[0]] / "/".join(rest[2:]))

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.denied:
            self._refuse(*self.server.denied[name])
        elif name in self.server.repos:
            error = {"error": "You already created this model repo"}
            self._answer(409, {"url": f"{os.environ['HF_ENDPOINT']}/{name}"} | error)
        else:
            self.server.repos[name] = Path(tempfile.mkdtemp(dir=os.environ["HF_HOME"]))
            if asked.get("visibility") == "private":
                self.server.private.add(name)
            self._answer(200, {"url": f"{os.environ['HF_ENDPOINT']}/{name}"})

    def _commit(self, name: str) -> None:
        lines = [json.loads(line) for line in self.body.splitlines()]
        files = [line["value"] for line in lines if line["key"] == "file"]
        contents = {file["path"]: base64.b64decode(file["content"]) for file in files}
        page = f"{os.environ['HF_ENDPOINT']}/{name}"
        answer = {"commitUrl": f"{page}/commit/{COMMIT}", "commitOid": COMMIT}
        if "create_pr=1" in self.path:
            self.server.proposed[name] = contents
            answer["pullRequestUrl"] = f"{page}/discussions/1"
        else:
            for path, content in contents.items():
                (self.server.repos[name] / path).write_bytes(content)
        self._answer(200, answer)

    def _describe(self, folder: Path, name: str, rest: list[str]) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
        entries = [
            {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)[:40]}
            for name, path in zip(names, files, strict=True)
        ]
        if rest[0] in ("", "revision"):
            siblings = [{"rfilename": name} for name in names]
            private = name in self.server.private
            about = {"private": private, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
            self._answer(200, {"id": name, "sha": COMMIT, "siblings": siblings, **about})
        elif rest[0] == "tree":
            under = "/".join(rest[2:])
            self._answer(200, [e for e in entries if str(e["path"]).startswith(under)])
        else:  # paths-info
            asked = json.loads(self.body)["paths"] if self.body.startswith(b"{") else []
            self._answer(200, [e for e in entries if e["path"] in asked])

    def _send_file(self, file: Path) -> None:
        if not file.is_file():
            self._refuse(404, "EntryNotFound")
            return
        body = file.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        headers = {"ETag": f'"{_digest(file)}"', "X-Linked-Size": str(len(body))}
        self._answer(206 if start else 200, body[start:], headers)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        length = {"Content-Length": str(len(content)), "X-Repo-Commit": COMMIT}
        for name, value in {**length, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.close_connection |= self.cut
            self.wfile.write(content[: len(content) // 2] if self.cut else content)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


SERVER = HubServer()


def use() -> None:
    """Make the server the Hub of this process, which has not asked for the Hub's address yet."""
    home = tempfile.mkdtemp(prefix="lpt-tests-hub-")
    atexit.register(SERVER.server_close)
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    host, port = SERVER.server_address[:2]
    os.environ |= {"HF_ENDPOINT": f"http://{host!s}:{port}", "HF_HOME": home}
