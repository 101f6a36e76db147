"""Log-in and log-out without JavaScript."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse


@pytest.mark.django_db
def test_log_in_leads_back_to_the_page_that_was_asked_for_and_log_out_ends_it() -> None:
    User.objects.create_user("ada", password="correct horse battery")
    client = Client()
    assert client.get("/devices/").headers["Location"] == "/login/?next=/devices/"
    answer = client.post(
        "/login/", {"username": "ada", "password": "correct horse battery", "next": "/devices/"}
    )
    assert answer.headers["Location"] == "/devices/"
    assert client.get("/devices/").status_code == 200
    client.post(reverse("dashboard:logout"))
    assert client.get("/devices/").status_code == 302


@pytest.mark.django_db
def test_a_wrong_password_says_so_and_an_open_redirect_is_refused() -> None:
    User.objects.create_user("ada", password="correct horse battery")
    wrong = Client().post("/login/", {"username": "ada", "password": "no"})
    assert "Please enter a correct username and password" in wrong.content.decode()
    away = {"username": "ada", "password": "correct horse battery", "next": "https://evil.example/"}
    assert Client().post("/login/", away).headers["Location"] == "/"
