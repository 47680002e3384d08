"""sslyze scans both doors: which versions and suites there are, and none of the old holes."""

import json
from pathlib import Path

from bench import Bench
from by_tls import Stage, set_up
from collector import TOOLS
from processes import Failed, run

PYTHON = TOOLS / "venv" / "bin" / "python"
SCAN_S_MAX = 180
VERSIONS_OFF = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
# Ephemeral keys and authenticated encryption alone.
SUITES_1_2 = {
    f"TLS_ECDHE_{{}}_WITH_{cipher}"
    for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
}
SUITES_1_3 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
CURVES = {"X25519", "secp256r1", "secp384r1"}
# Command, key of its result, and what it must be.
HOLES = [
    ("tls_compression", "supports_compression", False),
    ("tls_1_3_early_data", "supports_early_data", False),
    ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", False),
    ("heartbleed", "is_vulnerable_to_heartbleed", False),
    ("robot", "robot_result", "NOT_VULNERABLE_RSA_NOT_SUPPORTED"),
    ("session_renegotiation", "supports_secure_renegotiation", True),
    ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", False),
    ("tls_fallback_scsv", "supports_fallback_scsv", True),
    ("tls_extended_master_secret", "supports_ems_extension", True),
]
WORDS = [
    *("--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3"),
    *("--compression", "--early_data", "--openssl_ccs", "--heartbleed", "--robot", "--reneg"),
    *("--fallback", "--ems", "--elliptic_curves", "--certinfo"),
]


def nothing_weak(bench: Bench) -> str:
    """With a certificate of RSA and with one of ECDSA: each has its own suites in TLS 1.2."""
    for kind in ("rsa", "ecdsa"):
        stage = set_up(bench, kind=kind, name=kind)
        suites = {suite.format(kind.upper()) for suite in SUITES_1_2}
        for port in (stage.forebay.grpc_port, stage.forebay.http_port):
            found = scanned(bench.folder / f"{kind}-{port}.json", stage, port)
            judge(found, suites, str(stage.ours.file))
        stage.end({})
    return f"{len(SUITES_1_2)} suites of 1.2, {len(SUITES_1_3)} of 1.3, {len(HOLES)} holes are not"


def scanned(report: Path, stage: Stage, port: int) -> dict:
    argv = [PYTHON, "-W", "ignore", "-m", "sslyze", *WORDS, "--quiet"]
    argv += ["--certinfo_ca_file", stage.ours.file, "--json_out", report, f"localhost:{port}"]
    run(argv, "sslyze", SCAN_S_MAX)
    (server,) = json.loads(report.read_text())["server_scan_results"]
    if server["scan_status"] != "COMPLETED":
        raise Failed(f"sslyze did not scan: {server['connectivity_error_trace']}")
    found = server["scan_result"]
    broken = [
        name for name, one in found.items() if one["status"] not in ("COMPLETED", "NOT_SCHEDULED")
    ]
    if broken:
        raise Failed(f"sslyze did not finish {broken}: {found[broken[0]]['error_trace']}")
    return {name: one["result"] for name, one in found.items() if one["result"]}


def judge(found: dict, suites_1_2: set[str], ca_file: str) -> None:
    wanted = {f"{version}_cipher_suites": set() for version in VERSIONS_OFF}
    wanted |= {"tls_1_2_cipher_suites": suites_1_2, "tls_1_3_cipher_suites": SUITES_1_3}
    for command, suites in wanted.items():
        accepted = {one["cipher_suite"]["name"] for one in found[command]["accepted_cipher_suites"]}
        if accepted != suites:
            raise Failed(f"{command}: {accepted}, not {suites}")
    for command, key, right in HOLES:
        if found[command][key] != right:
            raise Failed(f"{command}: {key} is {found[command][key]}, not {right}")
    curves = {one["name"] for one in found["elliptic_curves"]["supported_curves"]}
    if curves != CURVES:
        raise Failed(f"the curves are {curves}, not {CURVES}")
    for chain in found["certificate_info"]["certificate_deployments"]:
        by_ours = [
            one["was_validation_successful"]
            for one in chain["path_validation_results"]
            if one["trust_store"]["path"] == ca_file
        ]
        if by_ours != [True] or chain["verified_chain_has_sha1_signature"]:
            raise Failed("the certificate is not what the authority issued")
