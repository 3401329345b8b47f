#!/usr/bin/env python3
"""The S3 gateway measured on this machine: W3- and W4-like work by many and by one, a folder of 100,000 keys
listed, and 1,000 connections held. One JSON line a figure; memory is that of the gateway's process.

  cargo build --release && bench/s3.py [--keys N] [--connections N] [--load PATH/load.py]

Servers and the gateway are processes of target/release/shardkeep, with one coordinator and four nodes, in a
temporary folder that goes at the end. --load runs W1 to W4 of that load generator (s5cmd) against the same gateway
first; nothing but Python's own library is needed otherwise.
"""
import argparse
import asyncio
import datetime
import hashlib
import hmac
import http.client
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

ROOT = Path(__file__).resolve().parent.parent


class Servers:
    """A cluster and a gateway; all end with this process."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.running = binary, Path(folder), []
        password = self.folder / "password"
        password.write_text("a long enough passphrase 9\n")
        self.env = dict(os.environ, SHARDKEEP_HOME=str(self.folder / "home"), SHARDKEEP_PASSWORD_FILE=str(password))
        ready = self.serve("serve", "coordinator", "--dir", self.folder / "c", "--listen", "127.0.0.1:0")
        self.run("register", ready["invite"])
        for i in range(4):
            token = self.run("cluster", "token", "node")
            self.serve("serve", "node", "--dir", self.folder / f"n{i}", "--listen", "127.0.0.1:0", "--join", token["token"])
        self.key = self.run("s3", "key", "create")
        self.start_gateway()

    def start_gateway(self):
        ready = self.serve("s3", "--listen", "127.0.0.1:0")
        self.url, self.gateway = ready["url"], self.running[-1]

    def restart_gateway(self):
        self.gateway.terminate()
        self.gateway.wait()
        self.start_gateway()

    def run(self, *args):
        done = subprocess.run([self.binary, *map(str, args), "--json"], env=self.env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"shardkeep {args[0]}: {done.stderr}")
        return json.loads(done.stdout)

    def serve(self, *args):
        errors = open(self.folder / "servers.log", "a")
        process = subprocess.Popen([self.binary, *map(str, args), "--json"], env=self.env, stdout=subprocess.PIPE, stderr=errors, text=True)
        self.running.append(process)
        line = process.stdout.readline()
        if not line:
            sys.exit(f"a server did not start; see {errors.name}")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        return json.loads(line)

    def stop(self):
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            process.wait()

    def memory(self, what):
        """Kilobytes: VmRSS now, or VmHWM, the most so far."""
        status = Path(f"/proc/{self.gateway.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+)", status)[1])


class Signer:
    """Signature version 4, payloads unsigned."""

    def __init__(self, servers):
        self.host = urlsplit(servers.url).netloc
        self.access, self.secret = servers.key["access_key"], servers.key["secret_key"]

    def headers(self, method, path, query=""):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        names = "host;x-amz-content-sha256;x-amz-date"
        canonical = f"{method}\n{path}\n{query}\nhost:{self.host}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:{now}\n\n{names}\nUNSIGNED-PAYLOAD"
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = ("AWS4" + self.secret).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        signed = f"AWS4-HMAC-SHA256 Credential={self.access}/{scope}, SignedHeaders={names}, Signature={signature}"
        return {"Host": self.host, "x-amz-date": now, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "Authorization": signed}


class Connection:
    """One kept alive."""

    def __init__(self, signer):
        self.signer = signer
        self.http = http.client.HTTPConnection(signer.host, timeout=120)

    def request(self, method, path, body=b"", query=""):
        self.http.request(method, path + ("?" + query if query else ""), body, self.signer.headers(method, path, query))
        answer = self.http.getresponse()
        data = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {data[:300]}")
        return data


def report(name, **figures):
    print(json.dumps({"name": name, **figures}), flush=True)


def many(signer, keys, workers):
    """Small objects by many at once."""
    local = threading.local()

    def put(i):
        if not hasattr(local, "connection"):
            local.connection = Connection(signer)
        local.connection.request("PUT", f"/bench/{i % 100:02}-{i:07}", b"%016d" % i)

    since = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(put, range(keys), chunksize=64))
    return keys / (time.monotonic() - since)


def listed(signer, query="list-type=2"):
    """All keys of the bucket in pages of 1,000, as they come: how many, and seconds."""
    connection, keys, token, since = Connection(signer), [], "", time.monotonic()
    while True:
        page = connection.request("GET", "/bench", query=(f"continuation-token={quote(token, safe='')}&" if token else "") + query).decode()
        keys += re.findall(r"<Key>([^<]*)</Key>", page)
        following = re.search(r"<NextContinuationToken>([^<]*)<", page)
        if not following:
            break
        token = following[1]
    if keys != sorted(keys):
        sys.exit("keys are not in order")
    return len(keys), round(time.monotonic() - since, 2)


async def held(signer, connections, size):
    """Opens all connections, sends a put on each (its body bit by bit), then a get that is read slowly; answers how many did not go well."""
    host, port = signer.host.split(":")
    body = random.randbytes(size)

    def head(method, path, length=None):
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in signer.headers(method, path).items())]
        return "\r\n".join(lines + ([f"Content-Length: {length}"] if length is not None else []) + ["", ""]).encode()

    async def answer(reader):
        raw = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", raw, re.I)
        return int(raw.split()[1]), int(length[1]) if length else 0

    async def one(i):
        reader, writer = await asyncio.open_connection(host, int(port), limit=64 << 10)
        writer.write(head("PUT", f"/bench/held/{i:05}", size))
        for at in range(0, size, 64 << 10):
            writer.write(body[at:at + (64 << 10)])
            await writer.drain()
            await asyncio.sleep(0.01)
        status, length = await answer(reader)
        await reader.readexactly(length)
        if status != 200:
            return f"put: {status}"
        writer.write(head("GET", f"/bench/held/{i:05}"))
        status, length = await answer(reader)
        got = hashlib.sha256()
        while length:
            part = await reader.read(min(length, 64 << 10))
            if not part:
                return "get: cut off"
            got.update(part)
            length -= len(part)
            await asyncio.sleep(0.005)
        writer.close()
        return None if got.digest() == hashlib.sha256(body).digest() else f"get: {status}, other bytes"

    results = await asyncio.gather(*(one(i) for i in range(connections)), return_exceptions=True)
    return [str(r) for r in results if r is not None]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--load", help="a load generator with the workloads W1 to W4, which takes S3_ENDPOINT and so on")
    parser.add_argument("--binary", default=str(ROOT / "target/release/shardkeep"))
    args = parser.parse_args()
    if not Path(args.binary).exists():
        sys.exit(f"{args.binary} is missing; first run: cargo build --release")
    folder = tempfile.mkdtemp(prefix="shardkeep-bench-s3-")
    servers = Servers(args.binary, folder)
    try:
        signer = Signer(servers)
        Connection(signer).request("PUT", "/bench")
        report("idle", gateway_rss_kb=servers.memory("VmRSS"))
        if args.load:
            load(args.load, servers)
            report("after the load", gateway_peak_kb=servers.memory("VmHWM"))
        if args.keys:
            rate = many(signer, args.keys, 32)
            report("put of 16 bytes, 32 at once", keys=args.keys, per_second=round(rate))
            report("list, the gateway knows them", **dict(zip(("keys", "seconds"), listed(signer))))
            servers.restart_gateway()
            signer = Signer(servers)
            report("list, a gateway just started", **dict(zip(("keys", "seconds"), listed(signer))), gateway_peak_kb=servers.memory("VmHWM"))
            report("list again", **dict(zip(("keys", "seconds"), listed(signer))))
            report("list by delimiter", **dict(zip(("keys", "seconds"), listed(signer, "delimiter=-&list-type=2"))))
        if args.connections:
            servers.restart_gateway()
            signer, since = Signer(servers), time.monotonic()
            failed = asyncio.run(held(signer, args.connections, 1 << 20))
            report(
                "connections held, each a put of 1 MiB bit by bit and a slow get", connections=args.connections, failed=len(failed),
                first_failures=failed[:3], seconds=round(time.monotonic() - since, 1), gateway_peak_kb=servers.memory("VmHWM"),
            )
    finally:
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


def load(path, servers):
    """W1 to W4 of a load generator that others are measured with."""
    pids = servers.folder / "pids"
    pids.mkdir()
    for i, process in enumerate(servers.running):
        (pids / f"{i}.pid").write_text(str(process.pid))
    env = dict(
        os.environ, S3_ENDPOINT=servers.url, S3_ACCESS_KEY=servers.key["access_key"], S3_SECRET_KEY=servers.key["secret_key"],
        S3_BUCKET="load", PIDS_DIR=str(pids), DATA_GLOB=str(servers.folder / "n*"),
    )
    subprocess.run([sys.executable, path, "--name", "shardkeep-s3", "--workloads", "W1,W2,W3,W4"], env=env)


if __name__ == "__main__":
    main()
