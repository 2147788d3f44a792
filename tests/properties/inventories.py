"""Random inventories, driven by the schema's own data: a key that is new there is tried here at once.

Values come from a field's type, choices, limits and pattern. What the schema cannot say of one value alone is built in
where it would otherwise spoil most inventories (names that exist, exactly one of a group of keys); what is left over,
``repaired`` mends or takes out, led by the model's own complaints.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from dataclasses import field as variable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.schema import MESH, SECTIONS
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import LARGEST, PATTERNS
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_pod import PROBE_KINDS
from hypothesis import strategies as some

Inventory = dict[str, Any]
Field = dict[str, Any]
Draw = some.DrawFn
Path = tuple["str | int", ...]

STATE = "/state"
ROUNDS = 30
"""The most repairs of one inventory; each takes out, or adds, all that the model complains of."""
MENDING_ROUNDS = 3
"""Those that add something."""

LEFT_OUT = ("envoy_patch", "kubernetes_patch")
"""What is the user's own responsibility."""
SET_HERE = ("engine", "images", "state_path", "resting")
SERVICE = SECTIONS["mesh_services"]["items"]["fields"]
PORT = SERVICE["port"]
BOOLEANS = some.booleans()
PROTOCOLS = SERVICE["protocol"]["choices"]
EXACTLY_ONE = (
    ("prefix", "path", "regex", "grpc"),
    ("exact", "prefix", "regex", "present"),
    tuple(SERVICE["hash_on"]["fields"]),
    PROBE_KINDS,
)
"""Keys of one dict of which just one is to be given."""
NEEDED = {"mesh_services": ("image", "command", "protocol"), "mesh_front_proxies": ("routes",)}
"""Keys without which nothing can be deployed, or nothing is routed."""

WORDS = (
    "a",
    "shop",
    "x-user",
    "n",
    "on",
    "~",
    "null",
    "1.5",
    "0x1F",
    "-",
    "é",
    "a b",
    "{}",
    "'",
    '"',
    "#",
    "%",
    "a: b",
    "x" * 200,
)
"""Text that some reader of YAML takes for something else, or that has to be quoted."""
TEXT = some.sampled_from(WORDS) | some.text(max_size=20)
EXPRESSIONS = some.sampled_from((".*", "/a[0-9]+", r"/\w+/(b|c)", "a{1,3}", "^/x$"))
HOSTS = some.sampled_from(("a.example.com", "*.example.com", "Example.ORG", "10.0.0.1", "*", "x")) | some.from_regex(
    r"(\*\.)?[a-z]{1,8}\.(example|test)", fullmatch=True
)
SPARED = {
    "name",
    "service",
    "port",
    "address",
    *(key for keys in NEEDED.values() for key in keys),
    "listeners",
    "virtual_hosts",
    "domains",
}
"""Keys that a repair takes out together with all around them only."""


def _named(pattern: str, **more: Any) -> some.SearchStrategy[Any]:
    """Objects of Kubernetes with names of their own."""
    names = some.lists(some.from_regex(PATTERNS[pattern][0], fullmatch=True), unique=True, max_size=2)
    return names.map(lambda chosen: [{"name": name, **more} for name in chosen])


BY_KEY: dict[str, some.SearchStrategy[Any]] = {
    # Languages that a pattern of the schema does not describe, by the key that holds them.
    "regex": EXPRESSIONS,
    "domains": some.lists(HOSTS, min_size=1, max_size=3),
    "hosts": some.lists(HOSTS, min_size=1, max_size=3),
    "args": some.lists(some.sampled_from(("--skip-deprecated-logs", "--enable-fine-grain-logging")), max_size=2),
    # Names that only Envoy knows.
    "extra_fields": some.dictionaries(
        some.from_regex(PATTERNS["variable"][0], fullmatch=True),
        some.sampled_from(
            ("%DURATION%", "%REQ(X-USER?:PATH):20% of %PROTOCOL%", "100%%", "%START_TIME(%Y-%m)%", "plain")
        ),
        max_size=2,
    ),
    # Of a choice of switches, the one that is given has to be on.
    "source_ip": some.just(True),
    "image": some.sampled_from(("registry.example.com/shop:1", "a")),
    "command": some.lists(TEXT, min_size=1, max_size=3),
    # Kubernetes' own objects.
    "volumes": _named("dns_label", emptyDir={}),
    "init_containers": _named("dns_label", image="a"),
    "env": _named("variable", value="n"),
    # Each replica is a proxy, or an address.
    "replicas": some.integers(0, 3),
    # Each thread takes Envoy time to start.
    "concurrency": some.integers(1, 4),
}


@dataclass
class Tally:
    """What became of all inventories of a run: keys generated, keys taken out again, keys of the schema that stayed."""

    inventories: int = 0
    valid_at_once: int = 0
    generated: int = 0
    dropped: int = 0
    reasons: Counter[str] = variable(default_factory=Counter)
    stayed: Counter[str] = variable(default_factory=Counter)

    def __str__(self) -> str:
        share = 100 * self.dropped / max(1, self.generated)
        return (
            f"{self.inventories} inventories, {self.valid_at_once} valid at once; "
            f"{self.generated} keys, {share:.1f} % taken out again"
        )


TALLY = Tally()


def model_of(inventory: Inventory) -> dict[str, Any]:
    """The model of an inventory's variables."""
    settings = {name.removeprefix("mesh_"): value for name, value in inventory.items() if name not in SECTIONS}
    services, fronts = (inventory.get(name) for name in SECTIONS)
    return build_model(services, fronts, {"state_path": STATE, **settings})


# Values


@dataclass(frozen=True)
class World:
    """What values may refer to: the protocols of all services by their names, and the service they are of."""

    protocols: dict[str, str]
    own: str = ""

    @property
    def services(self) -> list[str]:
        return list(self.protocols)

    def of(self, *protocols: str) -> tuple[str, ...]:
        return tuple(name for name, protocol in self.protocols.items() if protocol in protocols)


@some.composite
def inventories(draw: Draw) -> Inventory:
    """A valid inventory, without patches."""
    names = draw(some.lists(_pattern("dns_label"), unique=True, min_size=2, max_size=6))
    cut = draw(some.integers(1, len(names)))
    protocols = [draw(some.sampled_from(PROTOCOLS if number else ("http", "grpc"))) for number in range(cut)]
    world = World(dict(zip(names, protocols, strict=False)))
    made: Inventory = {"mesh_engine": draw(some.sampled_from(MESH["engine"]["choices"]))}
    settings = {key: setting for key, setting in MESH.items() if key not in SET_HERE}
    made |= {f"mesh_{key}": value for key, value in _dict(draw, settings, "mesh", world).items()}
    for section, own in zip(SECTIONS, (names[:cut], names[cut:]), strict=True):
        fields = SECTIONS[section]["items"]["fields"]
        made[section] = [_dict(draw, fields, section, replace(world, own=name), name=name) for name in own]
    return repaired(draw, made, world)


def _dict(draw: Draw, fields: dict[str, Field], place: str, world: World, **given: Any) -> dict[str, Any]:
    """A dict with the keys it needs and some of the others. ``place``: the key that holds it, or the list it is in."""
    made = {
        key: given[key] if key in given else _value(draw, key, fields[key], world)
        for key in _chosen(draw, fields, place)
    }
    return _fitted(draw, made, fields, place, world)


def _chosen(draw: Draw, fields: dict[str, Field], place: str) -> list[str]:
    groups = [group for group in EXACTLY_ONE if set(group) <= set(fields)]
    alternatives = {key for group in groups for key in group}
    known = [key for key in fields if key not in LEFT_OUT and key not in alternatives]
    wanted = {key for key in known if fields[key].get("required")} | set(NEEDED.get(place, ()))
    wanted |= {draw(_one(group)) for group in groups}
    optional = [key for key in known if key not in wanted]
    if optional:
        wanted |= set(draw(_subset(tuple(optional), max(5, len(optional) // 3))))
    return [key for key in fields if key in wanted]


# Hypothesis takes its time to make a strategy, so each is made once.


@functools.cache
def _one(values: tuple[Any, ...]) -> some.SearchStrategy[Any]:
    return some.sampled_from(values)


@functools.cache
def _subset(values: tuple[Any, ...], most: int) -> some.SearchStrategy[list[Any]]:
    return some.lists(some.sampled_from(values), unique=True, max_size=most)


@functools.cache
def _number(low: int, high: int) -> some.SearchStrategy[int]:
    return some.integers(low, high)


def _fitted(draw: Draw, made: dict[str, Any], fields: dict[str, Field], place: str, world: World) -> dict[str, Any]:
    """What a dict's keys demand of each other."""
    idle: list[str] = []
    if place == "mesh_services":
        made["protocol"] = world.protocols[made["name"]]
        elsewhere = [key for key in ("endpoints", "host", "versions") if made.get(key)]
        idle += [*elsewhere[1:], *(["upstreams"] if elsewhere else [])]
        if any("port" not in upstream for upstream in made.get("upstreams") or []):
            made["egress"] = "shared"
    if made.get("endpoints"):
        made["discovery"] = draw(_one(("static", "eds")))
    if made.get("lb_policy") in ("ring_hash", "maglev") and "hash_on" not in made:
        made["hash_on"] = _value(draw, "hash_on", fields["hash_on"], world)
    if made.get("virtual_hosts") and draw(BOOLEANS):
        idle += ["routes"]
    idle += _fitted_for_kubernetes(draw, made, fields, world)
    if place == "listeners":
        idle += _fitted_listener(draw, made, world)
    if place == "upstreams" and "port" in fields:
        if "match" in made:
            idle += ["port"]
        else:
            made["port"] = draw(_integers(PORT))
    return {key: value for key, value in made.items() if key not in idle}


def _fitted_for_kubernetes(draw: Draw, made: dict[str, Any], fields: dict[str, Field], world: World) -> list[str]:
    """A probe's kind is on; the keys of a policy's peer beside the one that says what it is have no use."""
    if set(PROBE_KINDS) <= set(fields):
        made |= {kind: True for kind in PROBE_KINDS if made.get(kind) is False}
    if not {"app", "cidr"} <= set(fields):
        return []
    alone = ("host", "cidr") if "host" in fields else ("cidr",)
    chosen = draw(_one((*alone, "app", "pods", "namespace")))
    made[chosen] = _value(draw, chosen, fields[chosen], world) or {"role": "n"}
    return [key for key in (*alone, "app", "pods", "namespace") if key in made and key != chosen]


def _fitted_listener(draw: Draw, made: dict[str, Any], world: World) -> list[str]:
    """The keys that the listener of a front proxy has no use for."""
    protocol = made.setdefault("protocol", "http")
    if protocol == "tls" and world.of("tls"):
        return ["service", "https_redirect", "tls"]
    if protocol == "tcp":
        made["service"] = draw(_one(tuple(world.services)))
        return ["services", "https_redirect"]
    made["protocol"] = "http"
    return ["service", "services", *(["https_redirect"] if "tls" in made else [])]


def _value(draw: Draw, key: str, field: Field, world: World) -> Any:
    """The value of a key."""
    kind = field["type"]
    if key in ("service", "services") and kind == "str":
        return draw(_one((key == "services" and world.of("tls")) or world.of("http", "http2", "grpc")))
    if key in BY_KEY:
        return draw(BY_KEY[key])
    if kind == "list":
        return _list(draw, key, field, world)
    if kind == "toggle" and draw(BOOLEANS):
        return draw(BOOLEANS)
    if kind in ("dict", "toggle"):
        short = field.get("shorthand")
        if short and draw(BOOLEANS):
            return _value(draw, short, field["fields"][short], world)
        return _dict(draw, field["fields"], key, world)
    if id(field) not in _SCALARS:
        _SCALARS[id(field)] = _scalar(field)
    return draw(_SCALARS[id(field)])


_SCALARS: dict[int, some.SearchStrategy[Any]] = {}
"""By the field of the schema."""


def _list(draw: Draw, key: str, field: Field, world: World) -> list[Any]:
    item = field["items"]
    if key == "upstreams":  # none twice
        others = [name for name in world.services if name != world.own]
        called = draw(_subset(tuple(others), 3)) if others else []
        return [_dict(draw, item["fields"], key, world, service=name) for name in called]
    least = 1 if field.get("required") or key in NEEDED["mesh_front_proxies"] else 0
    size = draw(_number(least, 3))
    if item["type"] == "dict":
        return [_dict(draw, item["fields"], key, world) for _number in range(size)]
    return [_value(draw, key if key == "services" else "", item, world) for _number in range(size)]


def _scalar(field: Field) -> some.SearchStrategy[Any]:
    """Values of a field without fields of its own, as YAML and as a template make them."""
    kind = field["type"]
    if "choices" in field:
        return some.sampled_from(field["choices"])
    if kind == "bool":
        return some.booleans() | some.sampled_from(("true", "False"))
    if kind == "int":
        return _integers(field)
    if kind == "number":
        return some.floats(field.get("minimum", 0), field.get("maximum", 1000)).map(lambda number: round(number, 3))
    if kind == "duration":
        return _durations(field)
    if kind == "bytes":
        sizes = some.integers(field.get("minimum", 0), field.get("minimum", 0) + 2**20)
        return sizes | some.integers(1, 9).map("{}Gi".format)
    if kind == "map":
        keys = (
            some.from_regex(PATTERNS[field["keys"]][0], fullmatch=True) if "keys" in field else some.sampled_from(WORDS)
        )
        return some.dictionaries(keys, _scalar(field["items"]), max_size=2)
    if kind == "str" and "pattern" in field:
        return _pattern(field["pattern"])
    return {"str": TEXT, "any": some.none() | some.booleans() | TEXT}[kind]


def _integers(field: Field) -> some.SearchStrategy[Any]:
    low, high = field.get("minimum", 0), field.get("maximum", LARGEST)
    # Small ones, and the limits themselves; ports that differ.
    near = (
        some.integers(low, low + 100) | some.sampled_from((low, high))
        if high != PORT["maximum"]
        else some.integers(low, high)
    )
    numbers = near | some.integers(low, high)
    return numbers | numbers.map(str)


def _durations(field: Field) -> some.SearchStrategy[Any]:
    low, high = field.get("minimum", 0), field.get("maximum", 3600)
    thousandths = some.integers(math.ceil(low * 1000), math.floor(high * 1000))
    between = thousandths.map(lambda number: number / 1000)
    written = thousandths.map("{}ms".format) | between.map("{}s".format) | some.sampled_from(("1m", "1h"))
    return some.sampled_from((low, high, math.ceil(low))) | between | written


@functools.cache
def _pattern(name: str) -> some.SearchStrategy[Any]:
    if name == "ip":
        return some.ip_addresses().map(str)
    if name == "cidr":
        return some.ip_addresses().map(lambda address: f"{address}/{address.max_prefixlen}")
    return some.from_regex(PATTERNS[name][0], fullmatch=True)


# Repairs


def repaired(draw: Draw, inventory: Inventory, world: World) -> Inventory:
    """The inventory with what the model misses, and without what it does not want; how much that was is in TALLY."""
    generated, dropped = _size(inventory), 0
    for number in range(ROUNDS):
        try:
            model_of(inventory)
        except ModelError as error:
            for problem in sorted(error.problems, key=_last_first, reverse=True):
                TALLY.reasons[re.sub(r"\[\d+\]", "[]", problem)[:100]] += 1
                if number >= MENDING_ROUNDS or not _mended(draw, inventory, problem, world):
                    dropped += _drop(inventory, path_of(problem))
            continue
        TALLY.inventories += 1
        TALLY.valid_at_once += not number
        TALLY.generated += generated
        TALLY.dropped += dropped
        TALLY.stayed.update(set(schema_paths(inventory)))
        return inventory
    raise AssertionError(f"still not valid after {ROUNDS} repairs: {inventory}")


def _mended(draw: Draw, inventory: Inventory, problem: str, world: World) -> bool:
    """Give a key that is missing, or one of some keys that exclude each other. False where that is not the problem."""
    path = path_of(problem)
    there, holder, key = _at(inventory, path), _at(inventory, path[:-1]), path[-1]
    field = field_at(path)
    if path[0] == "mesh_services" and (service := _at(inventory, path[:2])):
        world = replace(world, own=service["name"])
    if field and ": is missing; " in problem and isinstance(holder, dict) and there is None:
        holder[key] = _value(draw, str(key), field, world)
        return True
    group = re.search(r"; give exactly one of ([\w, ]+)$|: give exactly one of ([\w, ]+)$", problem)
    if field and group and isinstance(there, dict):
        names = [name for name in re.split(r", | or ", group[1] or group[2]) if name in field.get("fields", {})]
        kept = draw(_one(tuple(name for name in names if name in there) or tuple(names)))
        value = there.get(kept)
        for name in names:
            there.pop(name, None)
        there[kept] = _value(draw, kept, field["fields"][kept], world) if value is None else value
        return True
    return False


def _at(data: Any, path: Path) -> Any:
    """What is at a path; None where nothing is."""
    for step in path:
        if not (step in data if isinstance(data, dict) else isinstance(data, list) and step in range(len(data))):
            return None
        data = data[step]
    return data


def field_at(path: Path) -> Field | None:
    """The field of the schema that a path leads to."""
    field: Field | None = {"fields": {**{f"mesh_{key}": setting for key, setting in MESH.items()}, **SECTIONS}}
    for step in path:
        field = field and (field.get("items") if isinstance(step, int) else field.get("fields", {}).get(step))
    return field


def path_of(problem: str) -> Path:
    """Where in an inventory a problem is: ``mesh_services[0].port: …``."""
    words = re.match(r"[^:\s]+", problem)
    steps = re.findall(r"\[(\d+)\]|([^.\[\]]+)", words[0] if words else "")
    return tuple(int(index) if index else name for index, name in steps)


def _last_first(problem: str) -> list[tuple[bool, str, int]]:
    """Later items of a list go before earlier ones, whose numbers would change."""
    return [
        (isinstance(step, int), "" if isinstance(step, int) else step, step if isinstance(step, int) else 0)
        for step in path_of(problem)
    ]


def _drop(inventory: Inventory, path: Path) -> int:
    """Take out what is at a path; where nothing is, all that the dict around it can do without, or that dict itself.

    Returns how many keys that was.
    """
    before = _size(inventory)
    trail: list[tuple[Any, str | int]] = []
    data: Any = inventory
    for step in path:
        if not (step in data if isinstance(data, dict) else isinstance(data, list) and step in range(len(data))):
            break
        trail.append((data, step))
        data = data[step]
    if len(trail) < len(path) and isinstance(data, dict) and set(data) - SPARED:
        for key in set(data) - SPARED:
            del data[key]
        return before - _size(inventory)
    while trail and trail[-1][1] in SPARED:
        trail.pop()
    if trail:
        del trail[-1][0][trail[-1][1]]
    return before - _size(inventory)


def _size(value: Any) -> int:
    """How many keys there are, at any depth."""
    if isinstance(value, dict):
        return len(value) + sum(_size(item) for item in value.values())
    return sum(_size(item) for item in value) if isinstance(value, list) else 0


def schema_paths(value: Any, path: str = "") -> list[str]:
    """The keys of an inventory as the schema has them: ``mesh_services[].upstreams[].port``."""
    if isinstance(value, dict):
        inner = [schema_paths(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
    else:
        inner = [schema_paths(item, f"{path}[]") for item in value] if isinstance(value, list) else []
    return [*([path] if path else []), *(found for some_paths in inner for found in some_paths)]


def schema_keys() -> set[str]:
    """All keys that an inventory may have, as ``schema_paths`` names them."""
    settings = {f"mesh_{key}": field for key, field in MESH.items() if key not in SET_HERE}
    return {"mesh_engine", *_keys_of({**settings, **SECTIONS}, "")}


def _keys_of(fields: dict[str, Field], path: str) -> set[str]:
    found: set[str] = set()
    for key, field in fields.items():
        if key not in LEFT_OUT:
            here = f"{path}{key}"
            inner = field["items"] if field["type"] == "list" else field
            below = f"{here}[]." if field["type"] == "list" else f"{here}."
            found |= {here, *_keys_of(inner.get("fields", {}), below)}
    return found
