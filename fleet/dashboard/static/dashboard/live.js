/* Live regions: an element with data-live="job:12 devices" is fetched again when one of those names changed.

   The server sends names only; the page fetches itself with htmx and takes the region by its id. Without a stream the
   page asks every few seconds instead; without htmx it is a still page that a reload brings up to date. */
"use strict";
(() => {
  const COALESCE_MS = 500, POLL_WITH_STREAM_MS = 30000, POLL_WITHOUT_STREAM_MS = 5000;
  const waiting = new Map();
  let streaming = false;
  let lastPoll = Date.now();

  const regions = () => [...document.querySelectorAll("[data-live]")];
  const names = () => [...new Set(regions().flatMap((region) => region.dataset.live.split(/\s+/)).filter(Boolean))];
  const busy = (region) => document.querySelector(":popover-open") || region.contains(document.activeElement?.closest("form"));

  const refresh = (region) => {
    if (waiting.has(region.id)) return;
    waiting.set(region.id, setTimeout(() => {
      waiting.delete(region.id);
      const current = document.getElementById(region.id);
      if (!current || document.hidden) return;
      if (busy(current)) refresh(current);
      else htmx.trigger(current, "changed");
    }, COALESCE_MS));
  };

  const listen = () => {
    const url = document.body.dataset.stream;
    if (!url || !names().length) return;
    const source = new EventSource(`${url}?names=${encodeURIComponent(names().join(" "))}`);
    source.onopen = () => { streaming = true; };
    source.onerror = () => { streaming = false; };
    source.addEventListener("changed", (event) => {
      const changed = new Set(event.data.split(" "));
      regions().filter((region) => region.dataset.live.split(/\s+/).some((name) => changed.has(name))).forEach(refresh);
    });
    source.addEventListener("unavailable", () => { streaming = false; source.close(); setTimeout(listen, 60000); });
    addEventListener("pagehide", () => source.close(), { once: true });
  };

  const poll = () => {
    if (document.hidden || Date.now() - lastPoll < (streaming ? POLL_WITH_STREAM_MS : POLL_WITHOUT_STREAM_MS)) return;
    lastPoll = Date.now();
    regions().filter((region) => !("liveOnce" in region.dataset)).forEach(refresh);
  };

  /* A swap must not close what the reader has opened. */
  let open = [];
  document.addEventListener("htmx:beforeSwap", () => {
    open = [...document.querySelectorAll("details[open][id]")].map((details) => details.id);
  });
  document.addEventListener("htmx:afterSettle", () => {
    open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  });

  document.addEventListener("DOMContentLoaded", () => {
    if (typeof htmx === "undefined" || !regions().length) return;
    listen();
    setInterval(poll, 1000);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) regions().forEach(refresh); });
  });
})();
