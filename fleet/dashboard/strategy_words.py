"""A strategy as the page of a rollout shows it: what was chosen, in words; what nobody chose is left out."""

from fleet.dashboard import words
from fleet.rollouts.conditions import Rate, Window
from fleet.rollouts.strategy import Strategy

Row = tuple[str, str]

JOINERS = {
    "join": "are asked in the last wave",
    "ignore": "are not asked",
    "always": "are asked in the last wave, and after the end as well",
}


def rows(rules: Strategy) -> list[Row]:
    """Terms and their sentences, in the order of the wizard."""
    found = [*_who(rules), *_when(rules), *_how_fast(rules), *_in_time(rules), *_trial(rules), *_gates(rules)]
    return [(term, text) for term, text in found if text]


def _who(rules: Strategy) -> list[Row]:
    who = rules.who
    never = [who.exclude, *(f"group {slug}" for slug in who.exclude_groups)]
    return [
        ("Waves", ", ".join(str(size) for size in rules.waves)),
        ("Only", who.rule),
        ("Never", "; ".join(each for each in never if each)),
        ("Share", f"{who.share}, chosen at random" if who.share else ""),
        ("Held back", f"{who.hold_back}, for comparison" if who.hold_back else ""),
        ("By way of", ", ".join(f"v{number}" for number in who.must_pass_through)),
        ("Late joiners", JOINERS[who.late_joiners]),
    ]


def _when(rules: Strategy) -> list[Row]:
    yes = [
        "before the start" if rules.require_approval else "",
        "before each further wave" if rules.approve_waves else "",
    ]
    return [
        ("Soak", f"{rules.soak_seconds} s"),
        ("Window", _window(rules.window)),
        ("A person's yes", " and ".join(each for each in yes if each)),
        ("Owners", "" if rules.ask_consent else "are not asked, even where the label says so"),
        ("Priority", str(rules.priority) if rules.priority else ""),
    ]


def _window(window: Window | None) -> str:
    if window is None:
        return ""
    return f"{window.cron} for {window.minutes} minutes, {window.zone} where a device has no time zone"


def _how_fast(rules: Strategy) -> list[Row]:
    device, site = rules.budgets.device_bytes_per_day, rules.budgets.site_bytes_per_day
    budgets = [
        f"{words.size(device)} a device and day" if device else "",
        f"{words.size(site)} a site and day" if site else "",
    ]
    parts = {None: "", True: "always in parts", False: "never in parts"}
    return [
        ("Waves open", parts[rules.paced]),
        ("Rate", _rate(rules.rate)),
        ("Budget", ", ".join(each for each in budgets if each)),
    ]


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return ""
    grows = f", times {rate.factor:g} with each {rate.after_successes} successes" if rate.factor > 1 else ""
    return f"{rate.per_minute} devices a minute{grows}, at most {rate.most_per_minute}"


def _in_time(rules: Strategy) -> list[Row]:
    steps = [f"{state} {seconds} s" for state, seconds in rules.step_timeouts.by_state().items()]
    if rules.step_timeouts.consent is not None:
        steps.append(f"owner's answer {rules.step_timeouts.consent} s")
    retry, tries = rules.retry, ""
    if retry.attempts > 1:
        tries = (
            f"{retry.attempts} in all, after {retry.first_wait_s} s, times {retry.factor:g} each, "
            f"at most {retry.most_wait_s} s"
        )
    return [("Time-out", ", ".join([f"{rules.delivery_timeout_s} s", *steps])), ("Tries", tries)]


def _trial(rules: Strategy) -> list[Row]:
    trial = rules.trial
    wanted = [
        f"{trial.min_inferences} inferences",
        f"{trial.min_labelled} labels" if trial.min_labelled else "",
        f"at most {trial.max_seconds} s",
        f"{trial.max_errors} errors allowed" if trial.max_errors else "",
        f"each within {words.micros(trial.deadline_us)}" if trial.deadline_us else "",
        f"accuracy above {words.share(trial.accuracy_floor)}" if trial.accuracy_floor is not None else "",
    ]
    name = "In the shadow" if trial.shadow else "Trial"
    return [(name, ", ".join(each for each in wanted if each))]


def _gates(rules: Strategy) -> list[Row]:
    tolerated = [
        f"{words.label(name)} {words.share(value)}"
        for name, value in rules.tolerated.model_dump().items()
        if value is not None and name in rules.tolerances()
    ]
    return [
        (
            "Failures",
            f"{words.share(rules.p0)} of devices tolerated; {words.share(rules.p1)} must not get through",
        ),
        ("Stops at", f"{words.share(rules.safety_limit)} failed devices at once"),
        ("False stop", f"at most {words.share(rules.alpha)}, however often gates look"),
        ("Tolerated", ", ".join(tolerated)),
        ("No more evidence", rules.when_evidence_runs_out or "as the size suggests"),
    ]
