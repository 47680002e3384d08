"""TLS from the server under test to a Collector: each proves to the other who it is.

The certificates are openssl's, the far side is Go's TLS.
"""

from dataclasses import dataclass
from pathlib import Path

from bench import Bench, Load, hold_against
from collector import Collector
from forebay import Exporter, Setup
from processes import run

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n"


class Papers:
    """A CA, and what it issued to the server and to the client."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._openssl("req", "-x509", *KEY, "-subj", "/CN=a CA", *self._made("ca"))
        (folder / "names").write_text(NAMES)
        for name in ("server", "client"):
            request = folder / f"{name}.csr"
            key = folder / f"{name}.key"
            self._openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
            ca = ["-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial"]
            more = ["-days", "2", "-extfile", folder / "names", "-out", folder / f"{name}.pem"]
            self._openssl("x509", "-req", "-in", request, *ca, *more)

    def block(self, name: str, ca_key: str) -> str:
        """A `tls` block that shows one of them; `ca_key` says what the CA is for."""
        own = f"cert_file: {self.folder}/{name}.pem, key_file: {self.folder}/{name}.key"
        return f"{{{own}, {ca_key}: {self.folder}/ca.pem}}"

    def _made(self, name: str) -> list:
        return ["-keyout", self.folder / f"{name}.key", "-out", self.folder / f"{name}.pem"]

    def _openssl(self, *arguments) -> None:
        run(["openssl", *arguments], "openssl", 10)


class SecuredCollector(Collector):
    def __init__(self, name: str, folder: Path, papers: Papers):
        super().__init__(name, folder)
        self._tls = papers.block("server", "client_ca_file")

    def config(self) -> str:
        text = super().config()
        for port in (self.grpc_port, self.http_port):
            endpoint = f'endpoint: "127.0.0.1:{port}"'
            text = text.replace(endpoint, f"{endpoint}, tls: {self._tls}")
        return text


@dataclass
class SecuredExporter(Exporter):
    tls: str = ""

    def yaml(self, name: str) -> str:
        text = super().yaml(name).replace("    tls: {insecure: true}\n", "")
        return f"{text.replace('http://', 'https://')}    tls: {self.tls}\n"


def mutual(bench: Bench, protocol: str) -> str:
    papers = Papers(bench.folder)
    downstream = bench.proxy(SecuredCollector("downstream", bench.folder, papers))
    downstream.wait_ready()
    twin = bench.collector("twin")
    port = downstream.grpc_port if protocol == "grpc" else downstream.http_port
    tls = papers.block("client", "ca_file")
    forebay = bench.forebay(Setup([SecuredExporter(protocol, port, tls=tls)]))
    sent = bench.send(Load("grpcio", "grpc"), forebay, twin)
    twin.end()
    ledger = forebay.end()
    downstream.end()
    return hold_against(sent, twin, [downstream], ledger)
