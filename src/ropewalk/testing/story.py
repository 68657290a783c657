"""A failure told: which events matter, a sequence diagram of them, and a test that plays it again.

    events_of(outcome)   what is worth telling, at most 40 events
    mermaid(outcome)     a sequenceDiagram for a document or an issue
    text(outcome)        the same for a terminal: a column for each participant where they fit, else lines
    test_file(outcome, target, workloads)   a pytest file, formatted

Pure functions of an Outcome: no World, no I/O. Beside the kinds of the log there are two of a story's own: "answered"
is a call together with its prompt answer, "omitted" says how many events were left out.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from .graveyard import slug
from .values import Act, Event, Fault, Late, Outcome

_TIMES = {"answered": 1, "commit": 2}  # that a like event is told: of commits a second one may be what is wrong
LONGEST = 40  # lines: what is read at one sitting; a shrunk failure has ten to twenty
PROMPT = 1.0  # seconds: an answer within it is told together with its call

_ENDING = 6  # lines of what broke
OUTSIDE = "outside"  # the host the workload's acts come from
_LASTING = {"slow", "slow-disk", "lossy", "hesitate", "coincide"}  # faults whose end is the same kind with the value 0

# What must not be left out when there is too much, most important first; the rest goes, oldest first.
_WEIGHT = {"fault": 0, "act": 0, "broken": 0, "failed": 1, "crashed": 1, "error": 1, "rollback": 2, "commit": 2}
_TOLD_ELSEWHERE = {"started"}  # a restart is a fault of the schedule, and the first start is no news


# -- what is worth telling


def events_of(outcome: Outcome, longest: int = LONGEST) -> tuple[Event, ...]:
    """The events worth telling, by time: all acts and faults, what failed, and the calls and commits near what broke.

    An answered call that repeats another one since the last act or fault is dropped, a host's third commit of a name
    as well, and a prompt answer is folded into its call. At most `longest` events; the first of them is "omitted" when
    there were more.
    """
    told = [event for event in outcome.events if event.kind not in _TOLD_ELSEWHERE]
    told = _touching(told, outcome.broken)
    told = _with_schedule(told, outcome)
    told = _without_repeats(_folded(told))
    return tuple(_bounded(told, longest))


def _with_schedule(events: Sequence[Event], outcome: Outcome) -> list[Event]:
    """The events with all that the schedule holds, each once: the log keeps its last ones, and has words of its own."""
    acts = [_event_of_act(act) for act in outcome.schedule.acts]
    faults = [_event_of_fault(fault) for fault in outcome.schedule.faults]
    begun = {event.text for event in acts}
    befell = [*faults, *(event for event in events if event.kind == "fault")]
    rest = [
        event
        for event in events
        if not (event.kind == "act" and event.text in begun)
        and not (event.kind == "fault" and any(_is_told_by(event, fault) for fault in faults))
        and not (event.kind == "crashed" and any(_is_told_by(event, fault) for fault in befell))
    ]
    return sorted([*acts, *faults, *rest], key=lambda event: event.at)


def _is_told_by(logged: Event, fault: Event) -> bool:
    """Whether what the log says of a host is the doing of `fault`: the same moment, and a service in common."""
    services = set(map(_owner, _concerned(fault)))
    return abs(logged.at - fault.at) < 1e-6 and (
        not services or not services.isdisjoint(map(_owner, _concerned(logged)))
    )


def _event_of_act(act: Act) -> Event:
    return Event(act.at, OUTSIDE, "act", f"{act.name} #{act.number}")


def _event_of_fault(fault: Fault) -> Event:
    first, _, second = fault.target.partition(" ")
    over = " ends" if fault.kind in _LASTING and not fault.value else ""
    value = f" {fault.value:g}" if fault.value else ""
    return Event(fault.at, first, "fault", f"{fault.kind} {fault.target}{value}{over}", second)


def _touching(events: Sequence[Event], broken: str) -> list[Event]:
    """Without the calls and commits of services that the report of what broke does not name; all when it names none."""
    said = set(re.findall(r"[a-z0-9]+", broken.lower()))
    named = {event for event in events if _words(event) & said}
    if not named:
        return list(events)
    return [event for event in events if event in named or event.kind not in ("call", "answer", "commit", "rollback")]


def _words(event: Event) -> set[str]:
    """What a report may call the event by: its services and what was called there, also in the singular."""
    if event.kind not in ("call", "answer", "commit", "rollback"):
        return set()
    names = {_service(event.host), _service(event.peer), *event.text.partition(":")[0].split(".")} - {"", OUTSIDE}
    words = {word for name in names for word in re.findall(r"[a-z0-9]+", name.lower()) if len(word) > 2}
    return words | {word.removesuffix("s") for word in words if len(word) > 4}


def _folded(events: Sequence[Event]) -> list[Event]:
    """Each call with its prompt answer as one event "answered"; an answer that took long keeps its own line.

    Nothing is folded over a fault: what happened while the call was open is the story.
    """
    folded: list[Event | None] = list(events)
    open_calls: defaultdict[tuple[str, str, str], deque[int]] = defaultdict(deque)
    last_fault = -1
    for index, event in enumerate(events):
        key = (event.host, event.text.partition(":")[0], _service(event.peer))
        if event.kind == "fault":
            last_fault = index
        elif event.kind == "call":
            open_calls[key].append(index)
        elif event.kind in ("answer", "error") and open_calls[key]:
            call = open_calls[key].popleft()
            if event.kind == "answer" and call > last_fault and event.at - events[call].at <= PROMPT:
                folded[call], folded[index] = replace(events[call], kind="answered"), None
    return [event for event in folded if event is not None]


def _without_repeats(events: Iterable[Event]) -> list[Event]:
    """Since the last act or fault, each answered call of a service once, and each host's commit of a name twice."""
    kept: list[Event] = []
    seen: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        if event.kind in ("fault", "act"):
            seen.clear()
        if event.kind in _TIMES:
            what = (event.host if event.kind == "commit" else _service(event.host), event.text, _service(event.peer))
            seen[what] += 1
            if seen[what] > _TIMES[event.kind]:
                continue
        kept.append(event)
    return kept


def _bounded(events: Sequence[Event], longest: int) -> list[Event]:
    """The weightiest `longest` events, by time; the later of two that weigh the same."""
    if len(events) <= longest:
        return list(events)
    by_weight = sorted(range(len(events)), key=lambda index: (_WEIGHT.get(events[index].kind, 3), -index))
    kept = [events[index] for index in sorted(by_weight[: longest - 1])]
    left_out = len(events) - len(kept)
    return [Event(kept[0].at if kept else 0.0, OUTSIDE, "omitted", f"{left_out} more events are left out"), *kept]


# -- who takes part


def _participants(events: Sequence[Event], merged: bool) -> list[str]:
    """The columns, in order of appearance, the outside first; `merged`: the instances of a service are one."""
    named = [name for event in events for name in _concerned(event)]
    ordered = dict.fromkeys(_column(name, merged) for name in ([OUTSIDE] if OUTSIDE in named else []) + named)
    return list(ordered)


def _concerned(event: Event) -> list[str]:
    """The hosts an event is drawn at; a fault, at all that it befalls."""
    if event.kind == "omitted":
        return []
    names = [event.host, event.peer] if event.kind == "fault" or _is_arrow(event) else [event.host]
    if event.kind == "fault" and not event.host:
        names = [word for word in event.text.split() if re.fullmatch(r"[\w-]+/[\w-]+", word)]
    return [name for name in dict.fromkeys(names) if name]


def _column(name: str, merged: bool) -> str:
    return _service(name) if merged else name


def _service(host: str) -> str:
    """`payments` of `payments/1`; a database stays itself: it fails alone."""
    service, _, which = host.partition("/")
    return service if which.isdigit() else host


def _owner(host: str) -> str:
    """`payments` of `payments/1`, and of `payments/database` as well."""
    return host.partition("/")[0]


def _has_bare_services(events: Sequence[Event]) -> bool:
    """Whether calls go to a service while other events name its instances: then a column each would tell it twice."""
    names = {name for event in events for name in _concerned(event)}
    return any(name != _service(name) and _service(name) in names for name in names)


def _is_arrow(event: Event) -> bool:
    return event.kind in ("call", "answered", "answer", "error") and bool(event.peer) and event.peer != event.host


def _is_left_open(events: Sequence[Event]) -> set[int]:
    """The indices of calls that nothing ends."""
    open_calls: defaultdict[tuple[str, str, str], deque[int]] = defaultdict(deque)
    for index, event in enumerate(events):
        key = (event.host, event.text.partition(":")[0], _service(event.peer))
        if event.kind == "call":
            open_calls[key].append(index)
        elif event.kind in ("answer", "error") and open_calls[key]:
            open_calls[key].popleft()
    return {index for indices in open_calls.values() for index in indices}


def _what(event: Event, unanswered: bool = False) -> str:
    """The words of an event's line."""
    if event.kind == "call":
        return f"{event.text} (no answer)" if unanswered else event.text
    if event.kind == "answer":
        return f"{event.text} is answered"
    if event.kind == "broken":
        return f"{event.text.partition(':')[0]} is broken"  # what it said stands below
    if event.kind in ("act", "error", "omitted", "answered", "fault"):
        return event.text
    return f"{event.text} {event.kind}" if event.kind == "done" else f"{event.kind} {event.text}".rstrip()


def _ending(outcome: Outcome) -> str:
    """What broke, in its first lines: with a traceback in it, it is longer than the story."""
    lines = (outcome.broken or "Nothing broke.").splitlines() or [""]
    return "\n".join(lines[:_ENDING] + ["..."] * (len(lines) > _ENDING))


# -- for documents


def mermaid(outcome: Outcome) -> str:
    """A Mermaid sequenceDiagram: arrows for calls, notes for acts and faults, and what broke at the end."""
    events = events_of(outcome)
    merged = _has_bare_services(events) or len(_participants(events, False)) > 8
    names = _participants(events, merged) or [OUTSIDE]
    ids = {name: f"p{index}" for index, name in enumerate(names)}
    lines = ["sequenceDiagram"]
    lines += [f"    participant {ids[name]} as {_escaped(name)}" for name in names]
    unanswered = _is_left_open(events)
    for index, event in enumerate(events):
        lines.append("    " + _mermaid_line(event, index in unanswered, ids, merged))
    lines.append(f"    Note over {_span(names, ids)}: {_note(_ending(outcome), width=72)}")
    return "\n".join(lines) + "\n"


def _mermaid_line(event: Event, unanswered: bool, ids: dict[str, str], merged: bool) -> str:
    columns = list(dict.fromkeys(_column(name, merged) for name in _concerned(event)))
    if not _is_arrow(event) or len(columns) < 2:
        what = f"⚡ {_what(event)}" if event.kind == "fault" else _what(event, unanswered)
        return f"Note over {_span(columns or list(ids), ids)}: {_note(f'{event.at:.3f} s {what}', width=48)}"
    caller, callee = (ids[name] for name in columns)
    said = _escaped(f"{event.at:.3f} s {_what(event, unanswered)}")
    if event.kind == "answer":
        return f"{callee}-->>{caller}: {said}"
    if event.kind == "error":
        return f"{callee}--x{caller}: {said}"
    return f"{caller}{'-x' if unanswered else '->>'}{callee}: {said}"


def _span(names: Sequence[str], ids: dict[str, str]) -> str:
    """One participant, or the first and the last of several, from left to right."""
    order = list(ids)
    columns = sorted(names, key=order.index)
    return ids[columns[0]] if len(columns) == 1 else f"{ids[columns[0]]},{ids[columns[-1]]}"


def _note(said: str, width: int) -> str:
    return "<br/>".join(_escaped(line) for part in said.splitlines() for line in textwrap.wrap(part, width) or [""])


def _escaped(said: str) -> str:
    """As Mermaid shows it literally: `#`, `;` and `%%` are its own, `<` and `>` are HTML's."""
    entities = {"#": "#35;", ";": "#59;", "<": "#lt;", ">": "#gt;"}
    return "".join(entities.get(letter, letter) for letter in " ".join(said.split())).replace("%%", "#37;%")


# -- for terminals

_SGR = {"fault": "33", "crashed": "33", "error": "31", "failed": "31", "broken": "1;31", "act": "1", "omitted": "2"}
_NARROWEST = 24  # characters for the words beside the columns; below that, lines read better
_STAMP = 10  # characters of the time in front


def text(outcome: Outcome, width: int = 100, colour: bool = False) -> str:
    """The story for a terminal of `width` characters; `colour`: with ANSI sequences, which add no width.

    A column for each host where they fit; else one for each service; else a line for each event.
    """
    events = events_of(outcome)
    paint = _painted if colour else _plain
    for merged in [True] if _has_bare_services(events) else [False, True]:
        names = _participants(events, merged)
        if _STAMP + sum(map(_column_width, names)) + _NARROWEST <= width:
            lines = _drawn(events, names, merged, width, paint)
            break
    else:
        lines = _listed(events, width, paint)
    said = _ending(outcome).splitlines()
    ending = [words for line in said for words in textwrap.wrap(line, max(width - _STAMP, _NARROWEST)) or [""]]
    kind = "broken" if outcome.broken else "done"
    return "\n".join([*lines, *(paint(kind, " " * _STAMP + line) for line in ending)]) + "\n"


_Paint = Callable[[str, str], str]


def _plain(kind: str, line: str) -> str:
    return line.rstrip()


def _painted(kind: str, line: str) -> str:
    return f"\x1b[{_SGR[kind]}m{line.rstrip()}\x1b[0m" if kind in _SGR else line.rstrip()


def _column_width(name: str) -> int:
    return max(len(name), 8) + 4


def _drawn(events: Sequence[Event], names: Sequence[str], merged: bool, width: int, paint: _Paint) -> list[str]:
    """A lifeline for each name, and the words of an event right of them all."""
    widths = [_column_width(name) for name in names]
    left = _STAMP + sum(widths)
    head = " " * _STAMP + "".join(name.center(wide) for name, wide in zip(names, widths, strict=True))
    lines = [paint("act", head)]
    lifelines = _lifelines(widths)
    unanswered = _is_left_open(events)
    for index, event in enumerate(events):
        columns = [names.index(_column(name, merged)) for name in _concerned(event)]
        drawn = _marked(lifelines, widths, event, list(dict.fromkeys(columns)), index in unanswered)
        words = textwrap.wrap(_what(event, index in unanswered), width - left) or [""]
        lines.append(paint(event.kind, f"{event.at:>{_STAMP - 2}.3f}  {drawn}{words[0]}"))
        lines += [paint(event.kind, f"{' ' * _STAMP}{lifelines}{word}") for word in words[1:]]
    return [*lines, paint("", " " * _STAMP + lifelines)]


def _lifelines(widths: Sequence[int]) -> str:
    return "".join("│".center(wide) for wide in widths)


def _marked(lifelines: str, widths: Sequence[int], event: Event, columns: Sequence[int], unanswered: bool) -> str:
    """The lifelines with an event's mark on them, or its arrow between them."""
    places = [match.start() for match in re.finditer("│", lifelines)]
    line = list(lifelines)
    if not _is_arrow(event) or len(columns) < 2:
        mark = {"fault": "✖", "crashed": "✖", "act": "●", "commit": "■", "rollback": "□"}.get(event.kind, "○")
        for column in columns:
            line[places[column]] = mark
        return "".join(line)
    source, target = places[columns[0]], places[columns[1]]
    if event.kind in ("answer", "error"):
        source, target = target, source
    low, high = min(source, target), max(source, target)
    for place in range(low + 1, high):
        # An answer's line is dashed, as in every sequence diagram.
        line[place] = "─" if event.kind in ("call", "answered") or (place - low) % 2 else " "
    line[source] = "├" if source < target else "┤"
    if unanswered or event.kind == "error":
        line[target - 1 if source < target else target + 1] = "✖"
    else:
        line[target - 1 if source < target else target + 1] = "▶" if source < target else "◀"
    return "".join(line)


def _listed(events: Sequence[Event], width: int, paint: _Paint) -> list[str]:
    """A line for each event, its hosts in words."""
    unanswered = _is_left_open(events)
    lines: list[str] = []
    for index, event in enumerate(events):
        arrow = {"answer": "◀─", "error": "✖─", "answered": "─▶"}.get(event.kind, "─✖" if index in unanswered else "─▶")
        where = f"{event.host} {arrow} {event.peer}: " if _is_arrow(event) else f"{event.host}: "
        said = ("" if event.kind in ("fault", "omitted") else where) + _what(event, index in unanswered)
        words = textwrap.wrap(said, max(width - _STAMP, _NARROWEST)) or [""]
        lines.append(paint(event.kind, f"{event.at:>{_STAMP - 2}.3f}  {words[0]}"))
        lines += [paint(event.kind, " " * _STAMP + word) for word in words[1:]]
    return lines


# -- for the test suite

_LINE = 88  # characters: the formatter's own default, so a file is formatted under wider settings too


def test_file(
    outcome: Outcome,
    target: str,
    workloads: Sequence[str],
    folder: str | Path | None = None,  # noqa: PT028 - it writes a test and is none
) -> str:
    """A pytest file that replays the schedule and fails with the story for as long as it breaks.

    `target` and `workloads` as `ropewalk sim` was given them. `folder`: where the file is going to lie; a system file
    is then found from there, wherever pytest is run.
    """
    schedule = outcome.schedule
    found, imports = _target(target, folder)
    return "\n".join(
        [
            '"""' + _docstring(f"Seed {schedule.seed}: {(outcome.broken or 'Nothing broke.').splitlines()[0]}"),
            "",
            _docstring(text(outcome, width=_LINE)),
            '"""',
            "",
            *imports,
            f"from ropewalk.testing import {', '.join(_names_used(outcome))}",
            "",
            *found,
            "SCHEDULE = Schedule(",
            f"    seed={schedule.seed},",
            f"    seconds={schedule.seconds!r},",
            *_tuple("acts", [_act_literal(act) for act in schedule.acts]),
            *_tuple("faults", [_fault_literal(fault) for fault in schedule.faults]),
            f"    mode={_quoted(schedule.mode)},",
            *([] if schedule.late is None else _tuple("late", [_late_literal(late) for late in schedule.late])),
            *([] if schedule.blind is None else _tuple("blind", [[_quoted(name)] for name in schedule.blind])),
            ")",
            "",
            "",
            f"def test_{slug(outcome)}():",
            *_replay(workloads),
            "",
        ]
    )


test_file.__test__ = False  # type: ignore[attr-defined]  # else pytest collects it wherever it is imported


def _target(target: str, folder: str | Path | None) -> tuple[list[str], list[str]]:
    """The lines that name the target, and the lines of imports that takes."""
    if folder is None or ":" in Path(target).name:
        return [f"TARGET = {_quoted(target)}"], []
    parts = Path(os.path.relpath(Path(target).absolute(), Path(folder).absolute())).parts
    levels = parts.count("..")
    start = f"Path(__file__).parents[{levels}]" if levels else "Path(__file__).parent"
    below = [_quoted(part) for part in parts[levels:]]
    one_line = f"TARGET = str({' / '.join([start, *below])})"
    imports = ["from pathlib import Path", ""]
    if len(one_line) <= _LINE:
        return [one_line], imports
    return ["TARGET = str(", f"    {start}.joinpath(", *(f"        {part}," for part in below), "    ),", ")"], imports


def _names_used(outcome: Outcome) -> list[str]:
    schedule = outcome.schedule
    late = ["Late"] * bool(schedule.late)
    return [*["Act"] * bool(schedule.acts), *["Fault"] * bool(schedule.faults), *late, "Schedule", "replay"]


def _act_literal(act: Act) -> list[str]:
    return _call("Act", [f"at={act.at!r}", f"name={_quoted(act.name)}", f"number={act.number}"])


def _late_literal(late: Late) -> list[str]:
    given = [f"phase={_quoted(late.phase)}", f"at={late.at!r}", f"name={_quoted(late.name)}", f"number={late.number}"]
    return _call("Late", given)


def _fault_literal(fault: Fault) -> list[str]:
    value = [f"value={fault.value!r}"] if fault.value else []
    return _call(
        "Fault", [f"at={fault.at!r}", f"kind={_quoted(fault.kind)}", f"target={_quoted(fault.target)}", *value]
    )


def _call(name: str, arguments: Sequence[str]) -> list[str]:
    """The lines of a call that stands in a tuple of the schedule."""
    one_line = f"{name}({', '.join(arguments)})"
    if len(one_line) <= _LINE - 9:  # two steps to the right, and a comma
        return [one_line]
    return [f"{name}(", *(f"    {argument}," for argument in arguments), ")"]


def _tuple(name: str, literals: Sequence[list[str]]) -> list[str]:
    """The lines of one argument, as the formatter has them: its comma makes a tuple of several stand one a line."""
    if not literals:
        return [f"    {name}=(),"]
    one_line = f"    {name}=({literals[0][0]},),"
    if [1] == list(map(len, literals)) and len(one_line) <= _LINE:
        return [one_line]
    return [f"    {name}=(", *(f"        {line}" for lines in literals for line in _with_comma(lines)), "    ),"]


def _with_comma(lines: Sequence[str]) -> list[str]:
    return [*lines[:-1], lines[-1] + ","]


def _replay(workloads: Sequence[str]) -> list[str]:
    names = [_quoted(workload) for workload in workloads]
    one_line = f"    replay(TARGET, [{', '.join(names)}], SCHEDULE)"
    if len(one_line) <= _LINE:
        return [one_line]
    listed = ["        [", *(f"            {name}," for name in names), "        ],"]
    return ["    replay(", "        TARGET,", *listed, "        SCHEDULE,", "    )"]


def _docstring(said: str) -> str:
    """Text that is safe between triple quotes, as the formatter leaves it: not indented, no space at a line's end."""
    safe = said.replace("\\", "\\\\").replace('"""', "'''").expandtabs()
    return textwrap.dedent("\n".join(line.rstrip() for line in safe.strip("\n").splitlines()))


def _quoted(said: str) -> str:
    """A string literal in the quotes the formatter prefers."""
    return repr(said) if '"' in said else json.dumps(said, ensure_ascii=False)
