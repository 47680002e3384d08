"""Holds the comparison itself to account: it must see every change, and forgive regrouping."""

import copy
import json
import random

import compare
from bench import Bench
from processes import Failed

# After `bench`, which knows where the senders are.
import requests_by_hand as by_hand  # isort: skip
from arguments import Ledger  # isort: skip

CHANGES = 150
# What a leaf becomes, by its type.
CHANGED = {str: lambda old: old + "?", int: lambda old: old + 1, float: lambda old: 0.123}


def check(bench: Bench) -> str:
    rng = random.Random(bench.seed)
    for signal in compare.SHAPES:
        request = json.loads(by_hand.to_json(by_hand.make(signal, 30, Ledger(""), bench.seed)))
        truth = compare.items([request], signal)
        if compare.items(regrouped(request, signal, rng), signal) != truth:
            raise Failed(f"{signal}: regrouping alone made a difference")
        for _ in range(CHANGES):
            changed = copy.deepcopy(request)
            what = change_one_leaf(changed, rng)
            difference = compare.differ(truth, compare.items([changed], signal))
            if not (difference.missing or difference.unknown):
                raise Failed(f"{signal}: nobody saw that {what} changed (seed {bench.seed})")
        lost = compare.differ(truth, truth - type(truth)([next(iter(truth))]))
        twice = compare.differ(truth, truth + type(truth)([next(iter(truth))]))
        if not lost.missing or not twice.extra:
            raise Failed(f"{signal}: nobody saw a lost or a repeated item")
    return f"{CHANGES} changes of each signal, seed {bench.seed}"


def regrouped(request: dict, signal: str, rng) -> list[dict]:
    """Every scope group in a request of its own, in another order, attributes shuffled."""
    groups_key, scopes_key, _ = compare.SHAPES[signal]
    apart = [
        {groups_key: [{**group, scopes_key: [scope_group]}]}
        for group in copy.deepcopy(request)[groups_key]
        for scope_group in group[scopes_key]
    ]
    rng.shuffle(apart)
    for one in apart:
        for group in one[groups_key]:
            rng.shuffle(group.get("resource", {}).get("attributes", []))
    return apart


def change_one_leaf(request: dict, rng) -> str:
    """Changes one string, number or truth value somewhere; returns the path to it."""
    holder, key, path = rng.choice(list(leaves(request, "")))
    old = holder[key]
    holder[key] = not old if isinstance(old, bool) else CHANGED[type(old)](old)
    return path


def leaves(value, path: str):
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        inner, inner_path = value[key], f"{path}/{key}"
        if isinstance(inner, dict | list):
            yield from leaves(inner, inner_path)
        elif inner is not None:
            yield value, key, inner_path
