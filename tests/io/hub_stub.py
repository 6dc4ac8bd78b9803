"""The file API of a hub of models, on this machine: repositories in memory, with commits, served to huggingface_hub."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
LARGE = 100_000
"""Bytes from which on a file is uploaded apart, by LFS."""


class Repository:
    """Commits of one repository, by their names; the last is ``main``."""

    def __init__(self, *, private=False, gated=False):
        self.private, self.gated = private, gated
        self.commits, self.head = {}, None
        self.commit({".gitattributes": b"*.safetensors filter=lfs\n"})

    def commit(self, changes):
        files = {**self.commits.get(self.head, {}), **changes}
        files = {name: content for name, content in files.items() if content is not None}
        contents = [(name, etag(content)) for name, content in sorted(files.items())]
        self.head = etag(repr((len(self.commits), contents)).encode())[:40]
        self.commits[self.head] = files
        return self.head

    def at(self, revision):
        return self.head if revision == "main" else revision if revision in self.commits else None


class Hub:
    """What the server serves, and what it was asked for."""

    def __init__(self):
        self.repositories, self.objects = {}, {}
        self.asked, self.uploaded, self.cards = [], [], []

    def fetched(self):
        """Names of the files that were fetched, and not only asked about."""
        return [path.rpartition("/")[2] for how, path in self.asked if how == "GET" and "/resolve/" in path]


def handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.serve()

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        def serve(self):
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self.chunked()
            parts = path.strip("/").split("/")
            may_write = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if parts[0] == "objects":
                hub.objects[parts[1]] = body
                hub.uploaded.append(parts[1])
                return self.answer(200)
            if path == "/api/validate-yaml":
                hub.cards.append(json.loads(body)["content"])
                return self.answer(200, {"errors": [], "warnings": []})
            if self.command == "POST" and not may_write:
                return self.answer(401, {"error": "Invalid username or password."})
            if path == "/api/repos/create":
                return self.create(json.loads(body))
            api = parts[:2] == ["api", "models"]
            name = "/".join(parts[2:4] if api else parts[:2])
            repository = hub.repositories.get(name.removesuffix(".git"))
            if repository is None or (repository.private and not may_write):
                return self.answer(401, {"error": "Repository not found"}, code="RepoNotFound")
            if repository.gated and not api:
                return self.answer(403, {"error": "Access to this model is restricted"}, code="GatedRepo")
            what, rest = (parts[4:5], parts[5:]) if api else (parts[2:3], parts[3:])
            if what == ["info"]:
                return self.batch(json.loads(body))
            revision = repository.at(rest[0] if rest else "main")
            if revision is None:
                return self.answer(404, {"error": "Invalid rev id"}, code="RevisionNotFound")
            files = repository.commits[revision]
            if what == ["resolve"]:
                return self.file(files, revision, "/".join(rest[1:]))
            if what == ["tree"]:
                return self.answer(200, [entry(file, content) for file, content in files.items()])
            if what == ["preupload"]:
                modes = [
                    {"path": file["path"], "uploadMode": "lfs" if file["size"] >= LARGE else "regular"}
                    for file in json.loads(body)["files"]
                ]
                return self.answer(200, {"files": [{**mode, "shouldIgnore": False} for mode in modes]})
            if what == ["commit"]:
                commit = repository.commit(changes(body, hub))
                return self.answer(
                    200, {"commitUrl": f"{self.home}/{name}/commit/{commit}", "commitOid": commit}
                )
            info = {"_id": "1", "id": name, "modelId": name, "sha": revision, "private": repository.private}
            info |= {
                "siblings": [{"rfilename": file} for file in files],
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
            return self.answer(200, info)

        def create(self, asked):
            name = f"{asked['organization']}/{asked['name']}"
            if name in hub.repositories:
                return self.answer(409, {"error": "exists", "url": f"{self.home}/{name}"})
            private = asked.get("private") or asked.get("visibility") == "private"
            hub.repositories[name] = Repository(private=bool(private))
            return self.answer(200, {"url": f"{self.home}/{name}"})

        def batch(self, asked):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.home}/objects/{one['oid']}"}}}
                for one in asked["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})

        def file(self, files, revision, name):
            if name not in files:
                return self.answer(404, {"error": "Entry not found"}, code="EntryNotFound")
            more = {"X-Repo-Commit": revision, "ETag": f'"{etag(files[name])}"'}
            return self.answer(200, files[name], more=more)

        def answer(self, status, body=b"", code=None, more=None):
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            for key, value in (more or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def chunked(self):
            content = b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    content += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            return content

        @property
        def home(self):
            return f"http://{self.headers['Host']}"

    return Handler


def etag(content):
    return hashlib.sha256(content).hexdigest()


def entry(file, content):
    lfs = (
        {"lfs": {"oid": etag(content), "size": len(content), "pointerSize": 1}}
        if len(content) >= LARGE
        else {}
    )
    return {"type": "file", "path": file, "size": len(content), "oid": etag(content)[:40], **lfs}


def changes(body, hub):
    found = {}
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "file":
            assert value["encoding"] == "base64"
            found[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            found[value["path"]] = hub.objects[value["oid"]]
        elif line["key"] == "deletedFile":
            found[value["path"]] = None
    return found


@contextmanager
def serving(hub):
    """Give the address at which a hub is served for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
