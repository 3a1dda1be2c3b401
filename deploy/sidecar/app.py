"""A small shop: products, stock and a counter of visits, kept in Redis.

It knows one host and one port (REDIS_URL) and nothing of a cluster: a plain client, keys named as it likes, several of
them in one command, a transaction on the keys of one product.

    GET  /                    visits so far
    PUT  /products/NAME?N     put N pieces in stock
    POST /products/NAME/buy   take one, count the sale: both or neither
    GET  /products            everything in stock
    GET  /health              does Redis answer?
"""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import redis

PORT = int(os.environ.get("PORT", "8000"))
URL = os.environ.get("REDIS_URL", "redis://localhost:6380")
SECRET = os.environ.get("REDIS_PASSWORD_FILE")
store = redis.Redis.from_url(URL, password=SECRET and open(SECRET).read().strip(), decode_responses=True)


def visit():
    return {"visits": store.incr("visits"), "served_by": os.environ.get("HOSTNAME", "")}


def put_in_stock(name, pieces):
    store.mset({f"stock:{{{name}}}": pieces, f"product:{name}": name})
    store.sadd("products", name)
    return {"product": name, "stock": pieces}


def in_stock():
    names = sorted(store.smembers("products"))
    pieces = store.mget([f"stock:{{{name}}}" for name in names]) if names else []
    return dict(zip(names, map(int, pieces)))


def buy(name):
    def take_one(transaction):
        left = int(transaction.get(f"stock:{{{name}}}") or 0)
        transaction.multi()
        if left > 0:
            transaction.decr(f"stock:{{{name}}}")
            transaction.incr(f"sold:{{{name}}}")

    done = store.transaction(take_one, f"stock:{{{name}}}")
    return {"product": name, "stock": done[0], "sold": done[1]} if done else {"product": name, "sold_out": True}


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"/": visit, "/products": in_stock, "/health": store.ping}.get(urlsplit(self.path).path))

    def do_PUT(self):
        url = urlsplit(self.path)
        name = url.path.removeprefix("/products/")
        self.answer(lambda: put_in_stock(name, int(url.query or 1)))

    def do_POST(self):
        name = self.path.removeprefix("/products/").removesuffix("/buy")
        self.answer(lambda: buy(name))

    def answer(self, work):
        try:
            status, body = (200, work()) if work else (404, {"error": "no such page"})
        except (redis.RedisError, ValueError) as error:
            status, body = 503, {"error": str(error)}
        content = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("0.0.0.0", PORT), Shop).serve_forever()
