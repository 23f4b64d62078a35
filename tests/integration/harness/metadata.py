"""The services that hand out temporary credentials where a cloud has them: the instance's metadata
(version 2 only) and the container's endpoint. What they give are real keys of MinIO's STS, with
whatever expiration a test wants."""

import datetime
import http.server
import json
import secrets
import threading
import time

# Where AWS has them, on port 80; a test that takes them has a network of its own.
ADDRESSES = {"container": "169.254.170.2", "instance": "169.254.169.254"}

_ROLE = "training"
_ROLES = "/latest/meta-data/iam/security-credentials/"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_PUT(self):
        service = self.server.service
        if self.path != "/latest/api/token" or service.take_fault():
            self._send(503)
        elif not self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            self._send(400)
        else:
            self._send(200, service.session)

    def do_GET(self):
        service = self.server.service
        of_container = self.path == "/container"
        wanted = service.container_token if of_container else service.session
        given = self.headers.get("Authorization" if of_container else "X-aws-ec2-metadata-token")
        if given != wanted:
            self._send(401)
        elif self.path == _ROLES:
            self._send(200, _ROLE)
        elif not of_container and self.path != _ROLES + _ROLE:
            self._send(404)
        elif of_container and service.take_fault():
            self._send(503)
        else:
            self._send(200, json.dumps(service.hand_out()))

    def _send(self, status, text=""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


class Metadata:
    def __init__(self, work, minio, lifetime, address=None):
        self.minio = minio
        self.lifetime = lifetime  # in seconds, of what is handed out from now on
        self.keys = None          # handed out instead of fresh ones
        self.session, self.container_token = secrets.token_hex(16), secrets.token_hex(16)
        self.handed_out = []      # (when, when they expire), by time.time()
        self.secrets = {self.session, self.container_token}
        self._faults = 0
        self._lock = threading.Lock()
        self._at_home = address is not None
        self._server = http.server.ThreadingHTTPServer(
            (address, 80) if address else ("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.service = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        work.at_close(self.close)

    def environment(self, kind):
        """Of a process that gets its keys from the 'instance' or the 'container'."""
        common = {"AWS_REGION": "us-east-1"}
        if kind == "container":
            where = ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/container"} if self._at_home else
                     {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.url + "/container"})
            return {**common, **where, "AWS_CONTAINER_AUTHORIZATION_TOKEN": self.container_token}
        where = {} if self._at_home else {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}
        return {**common, **where, "AWS_EC2_METADATA_DISABLED": "false"}

    def fail(self, times):
        """So many requests are answered 503."""
        with self._lock:
            self._faults = times

    def take_fault(self):
        with self._lock:
            if self._faults == 0:
                return False
            self._faults -= 1
            return True

    def hand_out(self):
        keys = self.keys or self.minio.temporary_keys()
        with self._lock:
            expires = time.time() + self.lifetime
            self.handed_out.append((time.time(), expires))
            self.secrets |= {keys[k] for k in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
        until = datetime.datetime.fromtimestamp(expires, datetime.timezone.utc)
        return {"Code": "Success", "AccessKeyId": keys["AccessKeyId"],
                "SecretAccessKey": keys["SecretAccessKey"], "Token": keys["SessionToken"],
                "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
