#!/usr/bin/env python3
"""A bad link that is real for TCP and for QUIC alike: two network namespaces, a TUN device in each,
and this program between them, which delays every packet and loses some, by a seed.

`forebay-bench lossy` needs no privileges, but has to play TCP's losses; here the kernel's own TCP
repairs them. Needs root, `ip` and /dev/net/tun; makes and removes its own namespaces.

    benches/link.py --loss 0.02 --delay-ms 50 -- ENGINE BENCH [OPTIONS OF `forebay-bench load`]

measures HTTP/2 over TLS, then HTTP/3, with the same load against one engine on the other side, and
prints the latencies of both. TCP has the congestion control of the machine
(`sysctl net.ipv4.tcp_congestion_control`), the load's QUIC has Cubic: for a fair comparison set the
former to `cubic`.
"""

import argparse
import collections
import fcntl
import json
import os
import pathlib
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
SIDES = ("forebay-near", "forebay-far")
NEAR, FAR = "10.99.0.1", "10.99.0.2"
PORT, ADMIN = 4318, 8888
# As much as a router of a slow link holds; beyond it packets are lost as they are there.
QUEUE_PACKETS_MAX = 5000

CONFIG = """
receivers:
  otlp:
    protocols:
      http: {{endpoint: "{far}:{port}", tls: {tls}}}
      http3: {{endpoint: "{far}:{port}", tls: {tls}}}
processors: {{batch: {{}}}}
exporters: {{nop: {{}}}}
service:
  telemetry: {{metrics: {{address: "127.0.0.1:{admin}"}}, logs: {{level: warn}}}}
  pipelines: {{traces: {{receivers: [otlp], processors: [batch], exporters: [nop]}}}}
"""


def open_tun(name):
    """A TUN device that lives as long as its descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def ip(*words, check=True):
    quiet = {} if check else {"stderr": subprocess.DEVNULL}
    subprocess.run(["ip", *words], check=check, **quiet)


def join_namespaces():
    """Makes both namespaces, each with its end of the link. Returns the ends."""
    ends = []
    for side, address in zip(SIDES, (NEAR, FAR)):
        device = side[:15]
        ip("netns", "del", side, check=False)
        ip("netns", "add", side)
        ends.append(open_tun(device))
        ip("link", "set", device, "netns", side)
        ip("-n", side, "link", "set", "lo", "up")
        ip("-n", side, "addr", "add", f"{address}/24", "dev", device)
        ip("-n", side, "link", "set", device, "up", "mtu", "1500")
    return ends


class Link(threading.Thread):
    """Carries packets between two ends until it is told to stop."""

    def __init__(self, ends, loss, delay, seed):
        super().__init__(daemon=True)
        self.ends, self.loss, self.delay = ends, loss, delay
        self.chance = random.Random(seed)
        self.waiting = {end: collections.deque() for end in ends}
        self.carried = self.lost = 0
        self.ends_now = threading.Event()

    def run(self):
        while not self.ends_now.is_set():
            pause = self.let_go(time.monotonic())
            for end in select.select(self.ends, [], [], min(pause, 0.1))[0]:
                self.take(end)

    def let_go(self, now):
        """Hands on what has travelled long enough. Returns the seconds until more has."""
        pause = 1.0
        for end, packets in self.waiting.items():
            while packets and packets[0][0] <= now:
                try:
                    os.write(end, packets.popleft()[1])
                except OSError:
                    self.lost += 1
            if packets:
                pause = min(pause, max(packets[0][0] - now, 0))
        return pause

    def take(self, end):
        other = self.waiting[self.ends[1 - self.ends.index(end)]]
        while True:
            try:
                packet = os.read(end, 65536)
            except BlockingIOError:
                return
            self.carried += 1
            if self.chance.random() < self.loss or len(other) >= QUEUE_PACKETS_MAX:
                self.lost += 1
            else:
                other.append((time.monotonic() + self.delay, packet))


def wait_for_engine(engine):
    """Until the engine's admin port answers, which it does last."""
    ask = ["ip", "netns", "exec", SIDES[1], "curl", "-sf", f"http://127.0.0.1:{ADMIN}/metrics"]
    until = time.monotonic() + 30
    while subprocess.run(ask, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        if engine.poll() is not None or time.monotonic() > until:
            sys.exit("the engine did not start")
        time.sleep(0.05)


def measure(bench, transport, options):
    command = ["ip", "netns", "exec", SIDES[0], bench, "load", "--transport", *transport,
               "--insecure", *options, f"{FAR}:{PORT}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found, _ = json.JSONDecoder().raw_decode(printed)
    progress, latency = found["progress"], found["latency_us"]
    if progress["ok_requests"] == 0 or progress["failed_requests"] != 0:
        sys.exit(f"{transport[0]}: {progress}")
    figures = "  ".join(f"{name} {latency[name] / 1000:6.0f} ms" for name in
                        ("p50", "p90", "p99", "p999"))
    print(f"{transport[0]:6} {progress['ok_requests']:6} requests  {figures}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", type=float, default=0.02, help="share of packets, each way")
    parser.add_argument("--delay-ms", type=float, default=50.0, help="each way")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("engine")
    parser.add_argument("bench")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    link = Link(join_namespaces(), asked.loss, asked.delay_ms / 1000, asked.seed)
    link.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            serve_and_measure(asked, pathlib.Path(folder))
    finally:
        link.ends_now.set()
        link.join()
        for side in SIDES:
            ip("netns", "del", side, check=False)
    print(f"the link carried {link.carried} packets and lost {link.lost}")


def serve_and_measure(asked, folder):
    subprocess.run([asked.bench, "certificates", folder], check=True, stdout=subprocess.DEVNULL)
    tls = f"{{cert_file: {folder}/cert.pem, key_file: {folder}/key.pem}}"
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(far=FAR, port=PORT, admin=ADMIN, tls=tls))
    engine = subprocess.Popen(
        ["ip", "netns", "exec", SIDES[1], asked.engine, "--config", config],
        stdout=subprocess.DEVNULL)
    try:
        wait_for_engine(engine)
        measure(asked.bench, ["http2", "--tls"], asked.options)
        measure(asked.bench, ["http3"], asked.options)
    finally:
        engine.send_signal(signal.SIGTERM)
        engine.wait(30)


if __name__ == "__main__":
    main()
