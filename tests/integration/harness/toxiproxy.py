"""toxiproxy between a client and a server: resets, latency, silence, on and off at will."""

import json
import urllib.request

from . import process, suite


class Toxiproxy:
    def __init__(self, work, upstream_port):
        self.port = process.free_port()
        self._api = f"http://127.0.0.1:{process.free_port()}"
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.server = process.Server(
            [suite.tool("toxiproxy-server"), "-port", self._api.rpartition(":")[2]],
            work.path / "toxiproxy.log", process.clean_environment(work.path))
        work.at_close(self.server.close)
        self.server.wait_ready(lambda: self._call("GET", "/version") is not None, 20)
        self._call("POST", "/proxies", {"name": "p", "listen": f"127.0.0.1:{self.port}",
                                        "upstream": f"127.0.0.1:{upstream_port}"})

    def _call(self, method, path, body=None):
        request = urllib.request.Request(self._api + path, method=method,
                                         data=json.dumps(body).encode() if body else None)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.read()

    def add(self, kind, stream="downstream", toxicity=1.0, **attributes):
        self._call("POST", "/proxies/p/toxics", {"name": kind, "type": kind, "stream": stream,
                                                 "toxicity": toxicity, "attributes": attributes})

    def remove(self, kind):
        self._call("DELETE", f"/proxies/p/toxics/{kind}")

    def set_up(self, up):
        """A server that is not there, and there again."""
        self._call("POST", "/proxies/p", {"enabled": up})
