"""An HTTP server that remembers the headers of every request: what is sent where."""

import http.server
import json
import threading

BODY = b"recorded"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        recorder = self.server.recorder
        recorder.headers.append((self.path, dict(self.headers.items())))
        path = self.path.partition("://")[2].partition("/")[2] if "://" in self.path else self.path
        if recorder.moved_to:
            self._send(302, b"", Location=recorder.moved_to + "/" + path.lstrip("/"))
        elif path.endswith("/") or not path:
            rows = [{"name": "file", "type": "file", "size": len(BODY)}]
            self._send(200, json.dumps(rows).encode(), **{"Content-Type": "application/json"})
        else:
            self._send(200, BODY)

    def _send(self, status, body, **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Recorder:
    """Serves a folder with one file of BODY, or sends everybody on to another server."""

    def __init__(self, work, moved_to=None):
        self.moved_to = moved_to
        self.headers = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.recorder = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        work.at_close(self.close)

    def values(self, name):
        """All values of a header that came, without those requests that lacked it."""
        return [value for _, headers in self.headers for key, value in headers.items()
                if key.lower() == name.lower()]

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
