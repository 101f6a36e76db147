"""Prometheus' page, for staff who are logged in and for scrapers with an API token."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django_prometheus.exports import ExportToDjangoView

from fleet.accounts.services import find_token
from fleet.errors import Unauthenticated


def metrics(request: HttpRequest) -> HttpResponse:
    """Counters and timings of this process, in Prometheus' text format."""
    if _may_read(request):
        answer: HttpResponse = ExportToDjangoView(request)
        return answer
    remedy = "Log in as staff, or send the header 'Authorization: Bearer tf_...'."
    refusal = Unauthenticated("metrics are for staff and for API tokens", remedy=remedy)
    return JsonResponse(refusal.as_dict(), status=refusal.status)


def _may_read(request: HttpRequest) -> bool:
    if request.user.is_authenticated and request.user.is_staff:
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and find_token(token.strip()) is not None
