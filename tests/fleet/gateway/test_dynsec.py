"""Mosquitto with its dynamic security plugin, for real: rights, bound client ids, revoking, shared subscriptions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pytest_django import Settings

import tests.services as services_for_tests
from fleet.accounts.roles import Role
from fleet.gateway.service import Gateway
from fleet.inventory import services
from fleet.inventory.credentials import Credentials, device_credentials
from fleet.inventory.models import BrokerGrant, Device
from fleet.telemetry.models import Report
from tests.factories import DeviceFactory, UserFactory
from tests.fleet.gateway.conftest import Client, work
from tests.fleet.gateway.test_gateway import report
from tests.services import until

pytestmark = pytest.mark.django_db


@pytest.fixture
def mosquitto(tmp_path: Path, settings: Settings) -> Iterator[int]:
    """A Mosquitto whose administrator is the gateway; yields its port."""
    with services_for_tests.mosquitto(tmp_path / "mosquitto") as url:
        port = urlsplit(url).port
        assert port is not None
        settings.VAR = tmp_path
        settings.KEYS_DIR = tmp_path / "keys"
        settings.MQTT_URL = url
        settings.MQTT_HOST, settings.MQTT_PORT, settings.MQTT_TLS = "127.0.0.1", port, False
        settings.BROKER_GRANTS = "dynsec"
        yield port


@pytest.fixture
def gateways(mosquitto: int) -> Iterator[list[Gateway]]:
    """Two gateways side by side, which this broker allows."""
    made = [Gateway(0), Gateway(1)]
    for one in made:
        one.broker.start()
        work(one, "a gateway's connection", lambda one=one: one.broker.connected)
        one.send_once()
    yield made
    for one in made:
        one.close()


@pytest.fixture
def connect(mosquitto: int) -> Iterator[Callable[[Credentials], Client]]:
    """Connects clients, and closes them at the end."""
    clients: list[Client] = []

    def open_client(mine: Credentials) -> Client:
        clients.append(Client(mosquitto, mine))
        until("an answer", lambda: clients[-1].connected or clients[-1].refused)
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


def test_devices_join_speak_for_themselves_and_leave(
    gateways: list[Gateway], connect: Callable[[Credentials], Client]
) -> None:
    """The whole life of a device's rights, with two gateways sharing its reports."""
    for name in ("pi-1", "pi-2"):
        BrokerGrant.objects.create(device=DeviceFactory(name=name))
    work(gateways[0], "grants", lambda: not BrokerGrant.objects.filter(due=True).exists())
    mine = device_credentials("pi-1", 1)
    device = connect(mine)
    assert device.connected
    assert not connect(Credentials(mine.username, mine.password, "pi-1")).connected
    assert not connect(
        Credentials(mine.username, mine.password, gateways[0].settings.credentials.client_id)
    ).connected
    assert device.subscribe("fleet/v1/d/pi-1/desired/+", "fleet/v1/d/pi-1/command")
    assert not device.subscribe("fleet/v1/d/pi-2/command")
    assert not device.subscribe("fleet/v1/d/+/report")

    device.say("pi-2", "report", report(100))
    for sequence in range(1, 9):
        device.say("pi-1", "report", report(sequence))

    def eight() -> bool:
        for one in gateways:
            one.receive_once(0.05)
        return Report.objects.count() == 8

    until("eight reports", eight)
    assert set(Report.objects.values_list("device__name", flat=True)) == {"pi-1"}

    services.revoke(UserFactory(roles=[Role.ADMIN]), Device.objects.get(name="pi-1"))
    work(gateways[0], "the end of its connection", lambda: device.thrown_off)
    assert not connect(mine).connected
    assert all(one.broker.connected for one in gateways)


def test_a_new_generation_replaces_the_old_one(
    gateways: list[Gateway], connect: Callable[[Credentials], Client]
) -> None:
    """After enrolling again only the new secret opens the door."""
    grant = BrokerGrant.objects.create(device=DeviceFactory(name="pi-1"))
    work(gateways[0], "the grant", lambda: not BrokerGrant.objects.filter(due=True).exists())
    assert connect(device_credentials("pi-1", 1)).connected
    BrokerGrant.objects.filter(pk=grant.pk).update(generation=2, due=True)
    work(gateways[0], "the new grant", lambda: not BrokerGrant.objects.filter(due=True).exists())
    assert not connect(device_credentials("pi-1", 1)).connected
    assert connect(device_credentials("pi-1", 2)).connected
