"""An OpenID provider: discovery document, public key, and the signed tokens that workloads find in
a file. MinIO trusts it; its STS is asked through here, so that a test knows what was handed out."""

import base64
import hashlib
import http.server
import json
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from . import suite

CLIENT = "granary"


def _base64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        provider = self.server.provider
        documents = {"/.well-known/openid-configuration": {
            "issuer": provider.url, "jwks_uri": provider.url + "/keys"},
            "/keys": {"keys": [provider.public_key]}}
        self._send(200 if self.path in documents else 404,
                   json.dumps(documents.get(self.path, {})).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*self.server.provider.ask_sts(body))

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Identity:
    def __init__(self, work):
        self._directory = work.directory("identity", 0o700)
        self._openssl = suite.tool("openssl")
        self.token_file = self._directory / "token"
        self.secrets = set()   # every token that was made, every key that STS gave for one
        self.answered = []     # (token, status, when) of what STS was asked
        self.sts = None        # the address of the real one
        self._key = self._make_key("key")
        self.public_key = self._public_key()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.provider = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        work.at_close(self.close)

    def _make_key(self, name):
        path = self._directory / name
        subprocess.run([self._openssl, "genrsa", "-out", path, "2048"], check=True,
                       capture_output=True)
        return path

    def _public_key(self):
        said = subprocess.run([self._openssl, "rsa", "-in", self._key, "-noout", "-modulus"],
                              check=True, capture_output=True, text=True).stdout
        modulus = bytes.fromhex(said.strip().partition("=")[2])
        return {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "e": "AQAB",
                "n": _base64(modulus)}

    # ---- MinIO ---------------------------------------------------------------------------------

    def minio_environment(self):
        """Of a MinIO that trusts these tokens and lets who has one do everything."""
        return {"MINIO_IDENTITY_OPENID_CONFIG_URL": self.url + "/.well-known/openid-configuration",
                "MINIO_IDENTITY_OPENID_CLIENT_ID": CLIENT,
                "MINIO_IDENTITY_OPENID_CLIENT_SECRET": "unused",
                "MINIO_IDENTITY_OPENID_ROLE_POLICY": "readwrite"}

    @property
    def role(self):
        """As MinIO names it and says when it starts."""
        return "arn:minio:iam:::role/" + _base64(hashlib.sha1(CLIENT.encode()).digest())

    def trust(self, minio):
        """Waits until this MinIO, started with that environment, takes a token: its users are
        ready some time after the server."""
        self.sts = minio.endpoint
        form = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15",
                "RoleArn": self.role}

        def accepted():
            token = self.token(3600)
            return self.ask_sts(urllib.parse.urlencode(
                {**form, "WebIdentityToken": token}).encode())[0] == 200

        suite.wait_until(accepted, 60, "trusted by MinIO")

    def ask_sts(self, body):
        """The status and body of the real STS."""
        try:
            with urllib.request.urlopen(self.sts, body, timeout=30) as reply:
                status, answer = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            status, answer = error.code, error.read()
        token = urllib.parse.parse_qs(body.decode())["WebIdentityToken"][0]
        self.secrets |= set(re.findall(
            r"<(?:AccessKeyId|SecretAccessKey|SessionToken)>([^<]+)<", answer.decode()))
        self.answered.append((token, status, time.time()))
        return status, answer

    def environment(self):
        """Of a workload."""
        return {"AWS_REGION": "us-east-1", "AWS_ROLE_ARN": self.role,
                "AWS_WEB_IDENTITY_TOKEN_FILE": str(self.token_file),
                "AWS_ENDPOINT_URL_STS": self.url}

    # ---- tokens --------------------------------------------------------------------------------

    def token(self, seconds, key=None):
        now = int(time.time())
        parts = [{"alg": "RS256", "typ": "JWT", "kid": "1"},
                 {"iss": self.url, "aud": CLIENT, "sub": "workload", "iat": now,
                  "exp": now + seconds, "jti": os.urandom(8).hex()}]
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        signature = subprocess.run([self._openssl, "dgst", "-sha256", "-sign", key or self._key],
                                   input=signed.encode(), check=True, capture_output=True).stdout
        token = f"{signed}.{_base64(signature)}"
        self.secrets.add(token)
        return token

    def forged_token(self, seconds):
        return self.token(seconds, self._make_key("other"))

    def give(self, token):
        """Another file in the place of the one before, as kubelet does it. Returns the token."""
        fresh = self.token_file.with_suffix(".fresh")
        fresh.write_text(token + "\n")
        fresh.rename(self.token_file)
        return token

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
