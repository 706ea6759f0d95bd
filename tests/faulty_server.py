"""A web server on this machine that fails in every way a mirror can, for whoever fetches from one."""

import re
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from waiting import PATIENCE_SECONDS, wait_until

CONTENT = bytes(range(256)) * 1200  # several pieces on the way through a socket
NAME = "images.gz"


class _Handler(BaseHTTPRequestHandler):
    """Serves `CONTENT` under every path whose last folder is a fault, with that fault."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        fault = self.path.split("/")[-2]
        begin = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        self.server.seen.append((fault, begin))
        getattr(self, fault.replace("-", "_"), self.sound)(begin)

    def log_message(self, *_arguments):
        """Silence."""

    def answer(self, status, body, **headers):
        self.send_response(status)
        for key, value in {"Content_Length": len(body), "Connection": "close", **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def sound(self, begin, content=CONTENT, stop=None):
        """All from `begin` on, though no more than to `stop` is really sent."""
        head = {"Content_Length": len(content) - begin}
        if begin:
            head["Content_Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self.answer(206 if begin else 200, content[begin:stop], **head)

    def missing(self, _begin):
        self.answer(404, b"no such file")

    def wrong(self, begin):
        self.sound(begin, CONTENT[::-1])

    def page(self, _begin):
        self.answer(200, b"<html>please log in</html>")

    def halves(self, begin):
        self.sound(begin, stop=max((begin + len(CONTENT)) // 2, begin + 50_000))

    def rangeless(self, _begin):
        self.sound(0)

    def rangeless_then_half(self, _begin):
        self.sound(0, stop=len(CONTENT) // 2)

    def other_range(self, begin):
        self.answer(206 if begin else 200, CONTENT, Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")

    def no_such_range(self, begin):
        self.answer(416, b"") if begin else self.sound(0)

    def endless(self, _begin):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        for _ in range(10_000):
            self.wfile.write(CONTENT)

    def mute(self, _begin):
        self.server.closing.wait(PATIENCE_SECONDS)
        self.close_connection = True

    def halting(self, begin):
        self.sound(begin, stop=(begin + len(CONTENT)) // 2)
        self.server.go_on.wait(PATIENCE_SECONDS)
        self.wfile.write(CONTENT[(begin + len(CONTENT)) // 2 :])

    def encoded(self, _begin):
        self.answer(200, CONTENT, Content_Encoding="gzip")

    def moved(self, _begin):
        self.answer(302, b"", Location=f"/sound/{NAME}")

    def circular(self, _begin):
        self.answer(302, b"", Location=self.path)

    def handle(self):
        with suppress(BrokenPipeError, ConnectionResetError):
            super().handle()


class Faulty(ThreadingHTTPServer):
    """The server.

    `seen` is what it was asked for, as (fault, first byte), in order; `go_on` is what a halting mirror waits for in the
    middle of a file, `closing` what a mute one waits for.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen = []
        self.go_on = threading.Event()
        self.closing = threading.Event()

    def mirror(self, fault):
        """The address of the folder whose files come with this fault; `sound` is none."""
        host, port = self.server_address
        return f"http://{host}:{port}/{fault}/"


@contextmanager
def serving():
    """A server, in a thread, as long as the block runs."""
    server = Faulty()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def wait_for_part(path):
    """Wait until a partial file has its first bytes."""
    assert wait_until(lambda: path.exists() and path.stat().st_size), f"nothing came to {path}"
