"""What differs between boards: how the radio is set up and how the chip restarts; and how all stay online and on time."""
# mypy: disable-error-code="type-arg,import-not-found"

import sys
import time

TYPE_CHECKING = False  # MicroPython has no `typing`
if TYPE_CHECKING:
    from typing import Any

JOIN_S = 20
LOOK_MS = 5000
NTP_RETRY_MS = 30000
NTP_AGAIN_MS = 86400000
NTP_HOST = "pool.ntp.org"


def prepare_esp32(wlan, settings: dict) -> None:  # type: ignore[no-untyped-def]
    """The radio stays on over a soft reset and then refuses to connect, so it is switched off first."""
    wlan.active(False)
    wlan.active(True)
    wlan.config(reconnects=3)


def prepare_rp2(wlan, settings: dict) -> None:  # type: ignore[no-untyped-def]
    """Channels depend on the country; power saving costs the CYW43 a third of a second a packet."""
    import network

    if settings.get("country"):
        network.country(settings["country"])
    wlan.active(True)
    wlan.config(pm=0xA11140)


# sys.platform: what to do before the radio connects.
PREPARE = {"esp32": prepare_esp32, "rp2": prepare_rp2}


class Network:
    """Wi-Fi and time of one board. `settings`: ssid, password, and if wanted country, hostname, ntp_host."""

    def __init__(self, settings: dict, log=print) -> None:  # type: ignore[no-untyped-def]
        self.settings = settings
        self.log = log
        self.look_ms = self.ntp_ms = 0
        self.wlan: "Any" = None
        try:
            import network
        except ImportError:  # a wired board, or MicroPython on a computer
            log("no Wi-Fi here: the port's own network is used")
            return
        self.wlan = network.WLAN(network.STA_IF)
        if settings.get("hostname"):
            network.hostname(settings["hostname"])
        PREPARE.get(sys.platform, lambda wlan, _: wlan.active(True))(self.wlan, settings)

    def join(self) -> bool:
        """Connect, and wait up to 20 s for it; whether it worked."""
        if not self.settings.get("ssid"):
            self.log("Wi-Fi: wifi.json names no network: fill in ssid and password")
            return False
        self.log("joining " + self.settings["ssid"])
        try:
            self.wlan.connect(self.settings["ssid"], self.settings["password"])
        except OSError as error:
            self.log("Wi-Fi: %s" % error)
            return False
        for _ in range(JOIN_S * 10):
            if self.wlan.isconnected():
                self.log("address " + self.wlan.ifconfig()[0])
                return True
            time.sleep(0.1)
        self.log("Wi-Fi: no connection, status %s" % self.wlan.status())
        return False

    def step(self, now_ms: int) -> None:
        """Join again when the connection is gone, and set the clock when it is due; to be called in every round."""
        if now_ms < self.look_ms:
            return
        self.look_ms = now_ms + LOOK_MS
        if self.wlan is not None and not self.wlan.isconnected() and not self.join():
            return
        if now_ms >= self.ntp_ms:
            self.ntp_ms = now_ms + (NTP_AGAIN_MS if self.set_clock() else NTP_RETRY_MS)

    def set_clock(self) -> bool:
        """Take the time from NTP; without it the agent does not judge expiry, and TLS may refuse certificates."""
        try:
            import ntptime
        except ImportError:
            self.log("no time: ntptime is not installed; mpremote mip install ntptime")
            return False
        ntptime.host = self.settings.get("ntp_host", NTP_HOST)
        try:
            ntptime.settime()
        except Exception as error:  # noqa: BLE001  ports raise OSError, OverflowError or a bare Exception here
            self.log("no time from %s: %s" % (ntptime.host, error))
            return False
        return True


def reset() -> None:
    """Start the chip again; what was written is on the flash, because every write of the agent is flushed."""
    import machine

    if not hasattr(machine, "reset"):  # MicroPython on a computer: whoever started it starts it again
        sys.exit(3)
    machine.reset()
