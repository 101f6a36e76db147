"""One's own account: roles, API tokens, keys."""

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from fleet.accounts import services
from fleet.accounts.roles import MAY, Role, allows, roles_of
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.forms.account import TokenForm


@page("GET", "POST")
def show(request: HttpRequest) -> HttpResponse:
    """Who one is, and one's tokens; POST makes a token, whose text is shown in the answer and never again."""
    user = reader(request)
    form, text = TokenForm(request.POST or None), None
    if request.method == "POST" and form.is_valid():
        text = attempt(request, lambda: _make(user, form))
        form = TokenForm() if text else form
    everyone = allows(user, Role.ADMIN) and "everyone" in request.GET
    context = {
        "section": "account",
        "form": form,
        "text": text,
        "everyone": everyone,
        "tokens": services.tokens_for(user, everyone=everyone),
        "roles": [(role, MAY[role]) for role in Role if role in roles_of(user)],
        "now": timezone.now(),
    }
    answer = render(request, "dashboard/pages/account.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


def _make(user: User, form: TokenForm) -> str:
    lifetime = form.lifetime()
    expires_at = timezone.now() + lifetime if lifetime else None
    return services.make_token(user, form.cleaned_data["name"], expires_at=expires_at)[1]


@page("POST")
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """End a token for good."""
    token = services.token_of(reader(request), pk)
    attempt(
        request,
        lambda: services.revoke(token),
        f"Token {token.name} is revoked; nothing that used it gets in any more.",
    )
    return redirect("dashboard:account")
