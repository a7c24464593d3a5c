"""As much of S3 as a sample store uses, in a process of its own, with objects in memory.

    python fake_s3.py PORT

Deltalake may keep Python's global lock while it waits for an answer, so the server cannot be a
thread. Objects are listed, read in ranges, written whole or in parts, written only if absent, and
deleted one by one or in bulk. PUT /-/MODE changes how it answers: `up`, `failing` (503), `silent`.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

NEVER_S = 60.0
objects: dict[str, bytes] = {}
written: dict[str, str] = {}
"""When each object was written."""
parts: dict[str, dict[int, bytes]] = {}
modes = ["up"]
lock = Lock()


def store(key: str, data: bytes) -> None:
    objects[key] = data
    written[key] = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write for head and body: two wait for each other's acknowledgement.
    wbufsize = 1 << 16

    def log_message(self, format: str, *arguments: object) -> None:
        """Silence."""

    def handle_one_request(self) -> None:
        self.body = b""
        super().handle_one_request()

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts_of_url = urlsplit(self.path)
        self.key = unquote(parts_of_url.path).lstrip("/")
        self.query = parse_qs(parts_of_url.query, keep_blank_values=True)
        if self.key.startswith("-/"):
            modes[0] = self.key.removeprefix("-/")
            self.answer(200)
            return False
        if modes[0] == "silent":
            time.sleep(NEVER_S)
        if modes[0] != "up":
            self.answer(503)
            return False
        return True

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def do_GET(self) -> None:
        if "list-type" in self.query:
            self.answer(200, self.listing(), Content_Type="application/xml")
            return
        data = objects.get(self.key)
        if data is None:
            self.answer(404)
            return
        headers = {"ETag": etag(data), "Last_Modified": self.date_time_string()}
        bounds = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if bounds is None:
            self.answer(200, data, **headers)
            return
        first, last = int(bounds[1]), int(bounds[2] or len(data) - 1)
        part = data[first : last + 1]
        span = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        self.answer(206, part, Content_Range=span, **headers)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        if "uploadId" in self.query:
            number = int(self.query["partNumber"][0])
            parts[self.query["uploadId"][0]][number] = self.body
            self.answer(200, ETag=etag(self.body))
            return
        with lock:
            if self.headers.get("If-None-Match") == "*" and self.key in objects:
                self.answer(412)
                return
            store(self.key, self.body)
        self.answer(200, ETag=etag(self.body))

    def do_POST(self) -> None:
        if "uploads" in self.query:
            upload = f"upload{len(parts)}"
            parts[upload] = {}
            self.xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
        elif "uploadId" in self.query:
            chunks = parts.pop(self.query["uploadId"][0])
            store(self.key, b"".join(chunks[number] for number in sorted(chunks)))
            self.xml("CompleteMultipartUploadResult", f"<ETag>{etag(objects[self.key])}</ETag>")
        else:
            bucket = self.key.strip("/")
            deleted = []
            for key in re.findall(r"<Key>(.*?)</Key>", self.body.decode()):
                objects.pop(f"{bucket}/{key}", None)
                deleted.append(f"<Deleted><Key>{key}</Key></Deleted>")
            self.xml("DeleteResult", "".join(deleted))

    def do_DELETE(self) -> None:
        objects.pop(self.key, None)
        self.answer(204)

    def xml(self, name: str, content: str) -> None:
        self.answer(200, f"<{name}>{content}</{name}>".encode(), Content_Type="application/xml")

    def listing(self) -> bytes:
        prefix = self.query.get("prefix", [""])[0]
        after = self.query.get("start-after", [""])[0]
        delimiter = self.query.get("delimiter", [""])[0]
        bucket = self.key.strip("/")
        contents, folders = [], set()
        for name, data in sorted(objects.items()):
            key = name.removeprefix(f"{bucket}/")
            if not key.startswith(prefix) or key <= after:
                continue
            rest = key.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            contents.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
                f"<LastModified>{written[name]}</LastModified>"
                f"<ETag>{escape(etag(data))}</ETag></Contents>"
            )
        for folder in sorted(folders):
            contents.append(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>")
        entries = "".join(["<IsTruncated>false</IsTruncated>", *contents])
        return f"<ListBucketResult>{entries}</ListBucketResult>".encode()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("up", server.server_port, flush=True)
    server.serve_forever()
