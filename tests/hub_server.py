"""A stand-in for the Hugging Face Hub: the part of its HTTP API that pushing and fetching use."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandIn:
    """Repositories in memory.

    Attributes:
      files: {repository: {path: content}}.
      requests: what was asked, in order.
      cut: paths whose next download ends after so many bytes.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.address = ""


@contextmanager
def serving() -> Iterator[StandIn]:
    """Serve a stand-in on a port of this machine."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Stay quiet."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, content: Any = b"", status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("length", str(len(data))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _note(self) -> str:
        path = urlparse(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def do_POST(self) -> None:
        path, body = self._note(), self._body()
        if path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted.get('organization') or 'me'}/{wanted['name'].split('/')[-1]}"
            self.hub.files.setdefault(repo, {})
            self._answer({"url": f"{self.hub.address}/{repo}", "id": repo})
        elif path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            href = f"{self.hub.address}/store/"
            actions = [
                {**o, "actions": {"upload": {"href": href + o["oid"], "header": {}}}}
                for o in objects
            ]
            self._answer({"transfer": "basic", "objects": actions})
        elif "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "/commit/" in path:
            self._commit(re.fullmatch(r"/api/models/(.+)/commit/.*", path)[1], body)
        else:
            self._answer({"errors": [], "warnings": []})

    def _commit(self, repo: str, body: bytes) -> None:
        import base64

        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.hub.files[repo][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.hub.files[repo][value["path"]] = self.hub.objects[value["oid"]]
        url = f"{self.hub.address}/{repo}/commit/{COMMIT}"
        self._answer({"success": True, "commitOid": COMMIT, "commitUrl": url})

    def do_PUT(self) -> None:
        path, body = self._note(), self._body()
        self.hub.objects[path.rsplit("/", 1)[-1]] = body
        self._answer()

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _get(self) -> None:
        path = self._note()
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.*)?", path):
            files = self.hub.files.get(match[1])
            if files is None:
                self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
                return
            siblings = [{"rfilename": name} for name in files]
            self._answer({"id": match[1], "sha": COMMIT, "siblings": siblings, "private": False})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/.*", path):
            self._answer(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": _git_sha1(data)}
                    for name, data in self.hub.files[match[1]].items()
                ]
            )
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._send_file(match[1], match[2])
        else:
            self._answer({"error": "not here"}, 404)

    def _send_file(self, repo: str, name: str) -> None:
        data = self.hub.files.get(repo, {}).get(name)
        if data is None:
            self._answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        is_large = name.endswith(".safetensors")
        etag = hashlib.sha256(data).hexdigest() if is_large else _git_sha1(data)
        first = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        headers = {
            "ETag": f'"{etag}"',
            "X_Repo_Commit": COMMIT,
            "Accept_Ranges": "bytes",
            **({"X_Linked_Etag": f'"{etag}"', "X_Linked_Size": str(len(data))} if is_large else {}),
        }
        if first:
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.hub.requests.append(f"from byte {first} of {name}")
        if self.command == "HEAD":
            self._answer(data[first:], **headers)
            return
        keep = self.hub.cut.pop(name, None)
        self.send_response(206 if first else 200)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        self.wfile.write(data[first:] if keep is None else data[first:keep])
        if keep is not None:
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
