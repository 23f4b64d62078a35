"""An HTTP origin that misbehaves on purpose: no real server shows these faults on demand.

Serves objects with index pages like nginx's `autoindex_format json`. A fault belongs to a path and
goes away after it was shown `times` times (None: never).
"""

import collections
import http.server
import json
import re
import socket
import struct
import threading
import urllib.parse

MTIME = "Mon, 01 Jan 2024 00:00:00 GMT"
STALL_SECONDS = 60


class Fault:
    def __init__(self, kind, times=None, status=500):
        self.kind = kind
        self.left = times
        self.status = status
        self.shown = 0


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "faults"

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # clients give up on faults: that is what they are for

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(self.path.partition("?")[0]).lstrip("/")
        site = self.server.site
        with site.lock:
            site.requests[path] += 1
        fault = site.take_fault(path)
        if fault and fault.kind == "status":
            self._send(fault.status, b"fault", {"Retry-After": "1"})
        elif path == "" or path.endswith("/"):
            self._send_index(path)
        elif path not in site.objects or (fault and fault.kind == "gone"):
            self._send(404, b"")
        else:
            self._send_object(site.objects[path], site.etags[path], fault)

    def _send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_index(self, directory):
        rows, seen = [], set()
        for path, body in self.server.site.objects.items():
            if not path.startswith(directory):
                continue
            name, slash, _ = path[len(directory):].partition("/")
            if name in seen:
                continue
            seen.add(name)
            row = {"name": name, "type": "directory" if slash else "file", "mtime": MTIME}
            rows.append(row if slash else {**row, "size": len(body)})
        self._send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})

    def _send_object(self, body, etag, fault):
        kind = fault.kind if fault else ""
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if kind == "stall":
            self.server.site.stop.wait(STALL_SECONDS)
            self.close_connection = True
            return
        if kind == "size":
            body += b"!"
        first, last = self._range(len(body))
        headers = {"ETag": etag, "Last-Modified": MTIME, "Accept-Ranges": "bytes"}
        if self.headers.get("If-Match") not in (None, etag):
            self._send(412, b"")
            return
        status = 200
        if kind == "ignore-range":
            first, last = 0, len(body) - 1
        elif self.headers.get("Range"):
            status = 206
            shift = 1 if kind == "shifted" else 0
            total = "x" if kind == "garbage-range" else len(body)
            headers["Content-Range"] = f"bytes {first + shift}-{last + shift}/{total}"
        part = body[first:last + 1]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(part))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind in ("truncate", "stall-body"):
            self.wfile.write(part[:len(part) // 2])
            self.wfile.flush()
            if kind == "stall-body":
                self.server.site.stop.wait(STALL_SECONDS)
            self.close_connection = True
            return
        self.wfile.write(part)

    def _range(self, size):
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found:
            return 0, size - 1
        return int(found[1]), min(int(found[2] or size - 1), size - 1)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class FaultServer:
    def __init__(self, work, objects):
        self.objects = dict(objects)
        self.etags = {path: f'"{number:x}"' for number, path in enumerate(objects)}
        self.faults = {}
        self.lock = threading.Lock()
        self.requests = collections.Counter()
        self.stop = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        work.at_close(self.close)

    def fault(self, path, kind, times=None, status=500):
        """The fault, whose `shown` counts."""
        with self.lock:
            self.faults[path] = Fault(kind, times, status)
            return self.faults[path]

    def heal(self):
        with self.lock:
            self.faults = {}

    def take_fault(self, path):
        with self.lock:
            fault = self.faults.get(path)
            if not fault or fault.left == 0:
                return None
            if fault.left is not None:
                fault.left -= 1
            fault.shown += 1
            return fault

    def listing(self):
        """A listing file: path, size and etag of every object, a JSON object a line."""
        rows = [{"path": path, "size": len(body), "etag": self.etags[path]}
                for path, body in self.objects.items()]
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    def close(self):
        self.stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
