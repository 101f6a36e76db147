"""Logging in and out."""

from django.contrib.auth.views import LoginView, LogoutView

from fleet.dashboard.forms.session import LoginForm

login = LoginView.as_view(
    template_name="dashboard/login.html", authentication_form=LoginForm, redirect_authenticated_user=True
)
logout = LogoutView.as_view()
