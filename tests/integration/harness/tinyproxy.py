"""tinyproxy: a forward proxy that wants a user and a password, plain and by CONNECT."""

import re
import secrets
import socket

from . import process, suite

READY_SECONDS = 20

_CONFIG = """
Port {port}
Listen 127.0.0.1
Timeout 60
MaxClients 200
LogFile "{log}"
LogLevel Connect
Allow 127.0.0.1
BasicAuth {user} {password}
{ports}
"""


class Tinyproxy:
    def __init__(self, work, tunnels_to=(), name="tinyproxy"):
        """tunnels_to: the ports that CONNECT is allowed to; all where there are none."""
        self.port = process.free_port()
        self.user, self.password = "ann", secrets.token_hex(8)
        self.address = f"127.0.0.1:{self.port}"
        directory = work.directory(name)
        self._log = directory / "requests"
        self._position = 0
        config = directory / "conf"
        config.write_text(_CONFIG.format(port=self.port, log=self._log, user=self.user,
                                         password=self.password,
                                         ports="\n".join(f"ConnectPort {p}" for p in tunnels_to)))
        self.server = process.Server([suite.tool("tinyproxy"), "-d", "-c", config],
                                     directory / "tinyproxy.log",
                                     process.clean_environment(work.path))
        work.at_close(self.server.close)
        self.server.wait_ready(self._listens, READY_SECONDS)

    def _listens(self):
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def url(self, password=None):
        return f"http://{self.user}:{password or self.password}@{self.address}"

    def environment(self, password=None, **more):
        """Of a process that is to reach everything through it."""
        url = self.url(password)
        return {"http_proxy": url, "https_proxy": url, **more}

    def requests(self):
        """'GET http://...' and 'CONNECT host:port' that it was asked for since the last call."""
        with self._log.open(errors="replace") as log:
            log.seek(self._position)
            text = log.read()
            self._position = log.tell()
        return re.findall(r"Request \(file descriptor \d+\): (\S+ \S+)", text)
