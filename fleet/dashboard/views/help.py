"""Help inside the application: keys and words."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from fleet.dashboard.access import page

KEYS = [
    ("?", "this page"),
    ("/", "search"),
    ("g o", "overview"),
    ("g m", "models"),
    ("g j", "jobs"),
    ("g d", "devices"),
    ("g g", "groups"),
    ("g r", "rollouts"),
    ("g t", "telemetry"),
    ("j  k", "next and previous row of a list"),
    ("Enter", "open the row"),
    ("Esc", "close a question"),
]

WORDS = [
    ("Model, version", "A model is a named task; a version is one immutable upload of it, numbered 1, 2, 3."),
    ("Alias", "A movable name on a version, such as champion. Every move is kept, so what was live when can be read."),
    ("Dataset", "An .npz with x, y and, when given, split. Without a split, rows may have been trained on, which stands beside every figure."),
    ("Target", "A class of hardware with one runtime, and what is left of its flash and RAM for one artifact once firmware, interpreter, TLS, two slots and the spool are subtracted."),
    ("Goal", "What must survive: an accuracy, a largest drop, or both. It is judged on the point estimate; shown means that the interval's bound meets it too."),
    ("Job, candidate", "A job makes and measures candidates for several targets and publishes the best that fits, or names the budget that binds and the nearest candidate."),
    ("Artifact", "A published candidate: one version for one target, with its measurements, lineage and self-test."),
    ("Rollout, wave, delivery", "A version on its way to a group; one step of it; one device's share of it."),
    ("Trial", "The new artifact answers real requests on the device, uncommitted. It stays only if it ran clean and the labels allow it; otherwise the device goes back by itself."),
    ("Gate", "Between waves: sequential tests over devices say proceed, wait, hold or roll back, each with the sentence that says why."),
    ("In time, overdue", "A device is in time until three heartbeats passed without a word; then it is overdue. Offline means that the broker told us it left."),
    ("95 % interval, n", "How far the truth may be from a figure that stands on n rows (Wilson's interval for shares)."),
]  # fmt: skip


@page()
def show(request: HttpRequest) -> HttpResponse:
    """Keys and words."""
    return render(request, "dashboard/pages/help.html", {"section": "help", "keys": KEYS, "glossary": WORDS})
