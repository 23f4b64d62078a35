"""nginx as a static server with JSON index pages, and as a proxy that counts object bytes."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.parse

from . import process, suite

READY_SECONDS = 20

_FRAME = """
daemon off; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/error.log warn;
{user}
events {{ worker_connections 1024; }}
http {{
	log_format counted escape=json '{{"at":$msec,"method":"$request_method","uri":"$request_uri",'
		'"status":$status,"body_bytes":$body_bytes_sent,"range":"$http_range",'
		'"encoding":"$http_accept_encoding","connection":"$connection",'
		'"payer":"$http_x_amz_request_payer","signed":"$http_authorization"}}';
	access_log {dir}/access.log counted;
	types {{ }} default_type application/octet-stream;
	client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
	fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
	keepalive_requests 1000000; keepalive_timeout 300s; sendfile on; tcp_nodelay on;
{servers}
}}
"""

_PROXY = """
	upstream origin {{ server 127.0.0.1:{upstream}; keepalive 64; }}
	server {{
		listen 127.0.0.1:{port}{tls}; client_max_body_size 0;
		{certificate}
		location / {{
			proxy_pass http://origin; proxy_http_version 1.1;
			proxy_set_header Host $http_host; proxy_set_header Connection "";
			proxy_buffering off; proxy_request_buffering off;
		}}
	}}
"""

_STATIC = """
	server {{
		listen 127.0.0.1:{port}{tls}; root {root};
		{certificate}
		location / {{ autoindex on; autoindex_format json; }}
		location /plain/ {{ alias {root}/; autoindex off; }}
		location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
	}}
"""


class Request:
    """A line of the access log."""

    def __init__(self, line):
        fields = json.loads(line)
        self.at = fields["at"]  # seconds since 1970, when it had ended
        self.method = fields["method"]
        path, _, query = fields["uri"].partition("?")
        self.path = urllib.parse.unquote(path)
        self.query = query
        self.status = int(fields["status"])
        self.body_bytes = int(fields["body_bytes"])
        self.range = fields["range"]
        self.encoding = fields["encoding"]
        self.connection = fields["connection"]
        self.payer = fields["payer"]
        self.signed = bool(fields["signed"])

    def is_object_get(self):
        """Object bytes flow in these alone: no listing, no HEAD, no error."""
        return (self.method == "GET" and self.status in (200, 206) and not self.query
                and not self.path.endswith("/"))


class Nginx:
    """Common to both: one nginx with a log of requests."""

    def __init__(self, work, name, servers):
        self.directory = work.directory(name)
        user = "user root;" if os.geteuid() == 0 else ""
        config = self.directory / "nginx.conf"
        config.write_text(_FRAME.format(dir=self.directory, user=user, servers=servers))
        self._log = self.directory / "access.log"
        self._position = 0
        self.server = process.Server(
            [suite.tool("nginx"), "-p", self.directory, "-c", config, "-e",
             self.directory / "error.log"],
            self.directory / "nginx.log", process.clean_environment(work.path))
        work.at_close(self.server.close)
        self.server.wait_ready(self._listens, READY_SECONDS)

    def _listens(self):
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def requests(self, quiet=True):
        """Those since the last call. A request is logged when it ends: waits until all have, unless it
        is not to become quiet."""
        size = -1 if quiet else self._log.stat().st_size
        while self._log.stat().st_size != size and quiet:
            size = self._log.stat().st_size
            time.sleep(0.3)
        with self._log.open("rb") as log:
            log.seek(self._position)
            lines = log.read(size - self._position)
        self._position = size
        whole = lines.rfind(b"\n") + 1
        self._position += whole - len(lines)
        return [Request(line) for line in lines[:whole].splitlines()]

    def object_bytes(self):
        """Body bytes of objects since the last call."""
        return sum(r.body_bytes for r in self.requests() if r.is_object_get())


class Proxy(Nginx):
    """In front of an S3 server; keeps the Host header, which the signature covers."""

    def __init__(self, work, upstream_port, name="proxy", tls=False):
        self.port = process.free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        if tls:
            self.endpoint = f"https://localhost:{self.port}"
        self.ca_file, settings = _tls(work.directory(name), tls)
        super().__init__(work, name, _PROXY.format(upstream=upstream_port, port=self.port,
                                                   **settings))


class Static(Nginx):
    """Serves a folder; below /plain/ without index pages, below /moved/ by redirects."""

    def __init__(self, work, root, tls=False, name="static"):
        self.port = process.free_port()
        self.ca_file, settings = _tls(work.directory(name), tls)
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}"
        super().__init__(work, name, _STATIC.format(port=self.port, root=root, **settings))


def _tls(directory, wanted):
    """The file of the authority and what goes into the configuration."""
    if not wanted:
        return None, {"tls": "", "certificate": ""}
    certificate, key = _self_signed(directory)
    return certificate, {"tls": " ssl", "certificate":
                         f"ssl_certificate {certificate}; ssl_certificate_key {key};"}


def _self_signed(directory):
    certificate, key = pathlib.Path(directory) / "cert.pem", pathlib.Path(directory) / "key.pem"
    subprocess.run([shutil.which("openssl") or suite.tool("openssl"), "req", "-x509", "-newkey",
                    "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key
