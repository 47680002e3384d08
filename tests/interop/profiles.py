"""Profiles: each request carries a dictionary of its own, so it must pass through whole."""

import random
from collections import Counter

import grpc
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

import compare
from bench import Bench, exporter_to
from forebay import Setup
from processes import Failed

PATH = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
REQUESTS = 40


def pass_through(bench: Bench) -> str:
    downstream, twin = bench.collector("downstream"), bench.collector("twin")
    forebay = bench.forebay(Setup([exporter_to("grpc", downstream)], profiles=True))
    rng = random.Random(bench.seed)
    bodies = [request(rng).SerializeToString() for _ in range(REQUESTS)]
    for address in (forebay.grpc, twin.grpc):
        with grpc.insecure_channel(address) as channel:
            export = channel.unary_unary(PATH)
            for call in [export.future(body, timeout=10) for body in bodies]:
                call.result()
    forebay.end()
    downstream.end()
    twin.end()
    sent, came = whole(twin), whole(downstream)
    if sum(sent.values()) != REQUESTS or came != sent:
        raise Failed(f"{sum((sent - came).values())} of {REQUESTS} requests did not come whole")
    return f"{REQUESTS} requests, seed {bench.seed}"


def whole(collector) -> Counter:
    """Each request as one canonical text, for none may be split or merged."""
    return Counter(compare.canonical(one) for one in collector.requests())


def request(rng) -> service.ExportProfilesServiceRequest:
    """A few samples whose stacks, functions and names are indices into the dictionary."""
    made = service.ExportProfilesServiceRequest()
    dictionary = made.dictionary
    names = [f"function {rng.randrange(1000)} ü" for _ in range(4)]
    dictionary.string_table.extend(["", "cpu", "nanoseconds", *names])
    # Index 0 of every table is the zero value.
    for table in ("mapping", "location", "function", "link", "attribute", "stack"):
        getattr(dictionary, f"{table}_table").add()
    for index in range(len(names)):
        dictionary.function_table.add(name_strindex=3 + index)
        dictionary.location_table.add().lines.add(function_index=1 + index)
    dictionary.stack_table.add(location_indices=[1, 2])
    dictionary.stack_table.add(location_indices=[3, 4, 1])
    profile = made.resource_profiles.add().scope_profiles.add().profiles.add(
        time_unix_nano=1_790_000_000_000_000_000 + rng.randrange(10**9),
        duration_nano=10**10,
        profile_id=rng.randbytes(16),
    )
    profile.sample_type.type_strindex, profile.sample_type.unit_strindex = 1, 2
    for _ in range(rng.randrange(1, 6)):
        profile.samples.add(stack_index=rng.randrange(1, 3), values=[rng.randrange(10**9)])
    return made
